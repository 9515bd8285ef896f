"""The other side of the SWAP test: a second original that learned F' in place of forget, and what the same method leaves of it.

F' is drawn from validation. Weights of the second original stand in swapped/original.safetensors, logits tables in swapped/logits/;
weights of what forgot F' are not kept, as in the bank. None of it has a row: it is measured with, not measured."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from unlearning import checkpoint, reading, results, scratch, splits, table
from unlearning.files import digest, short
from unlearning.follow import held
from unlearning.grow import trained
from unlearning.observers import Resume
from unlearning.recipe import Recipe
from unlearning.workspace import Prepared, say


def make(prepared: Prepared, name: str, recipe: Recipe, seed: int) -> None:
    """The table that `results.swapped` reads, where it is missing or of another recipe, seed, request or first model; `recipe` is empty for
    the original: what did nothing. Killed, it goes on."""
    other = _other(prepared)
    with held(prepared.config.workspace / ".lethe" / "locks" / "swapped.lock", "evaluate.swap"):
        start = _original(other)
        known = _made(other, recipe) | {"kind": name, "seed": str(seed), "original": checkpoint.weights_hash(start)}
        known |= {"reading": reading.way(other), "beside": results.weights(prepared, name)}
        path = results.swapped_path(prepared, name)
        if _lies(path, known):
            return
        tensors = _trained(other, f"{name}, swapped", recipe, seed, start)
        known |= {"model": checkpoint.weights_hash(tensors)}
        table.write(reading.read(other, f"{name}, swapped", tensors, known), path)


def _other(prepared: Prepared) -> Prepared:
    """The same images, F' in forget's place: what an original is trained on is retain and F'."""
    mine = splits.swapped(prepared.splits, prepared.images)
    other = replace(prepared, splits=mine)
    index = {name: torch.from_numpy(rows).to(prepared.data.device) for name, rows in mine.items()}
    index["train"] = torch.cat([index["retain"], index["forget"]]).sort().values
    vars(other).update(compute=prepared.compute, data=replace(prepared.data, splits=index))  # cached properties
    return other


def _made(other: Prepared, recipe: Recipe) -> dict[str, str]:
    config = other.config
    return {"architecture": config.model.architecture, "recipe": repr(recipe)} | other.hashes


def _lies(path: Path, known: Mapping[str, str]) -> bool:
    """Whether the file is there and was made of these."""
    return path.exists() and known.items() <= checkpoint.metadata(path).items()


def _original(other: Prepared) -> dict[str, Tensor]:
    path = other.config.workspace / "swapped" / "original.safetensors"
    recipe, seed = scratch.recipe(other.config, "original"), other.config.run.seed
    known = _made(other, recipe) | {"seed": str(seed)}
    if _lies(path, known):
        return checkpoint.load(path)[0]
    say("original, swapped: training on retain and as many validation images as are forgotten")
    tensors = _trained(other, "original, swapped", recipe, seed)
    checkpoint.save(tensors, path, known)
    return tensors


def _trained(other: Prepared, label: str, recipe: Recipe, seed: int, start: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    chosen = other.compute
    network = other.network(seed)
    if start is not None:
        network.load_state_dict(start)
    weights = checkpoint.weights_hash(network.state_dict())
    key = [repr(recipe), weights, other.hashes["split"], str(seed), chosen.precision, chosen.device.type]
    resume = Resume(other.config.workspace / ".lethe" / "swapped" / short(digest(key)))
    (tensors,) = trained(other, recipe, network, resume, label, seeds_=(seed,))
    resume.done()
    return tensors
