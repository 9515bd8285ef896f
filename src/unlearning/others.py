"""The same method on other requests: what it leaves of images that it did not have to forget here. Two attacks take that.

SWAP: a second original learned F' in forget's place, and the method forgets F' (evaluate.swap). U-LiRA: shadow models, each of which
learned and forgot one half of F and F' (evaluate.shadows). F' is drawn from validation. What they say of F and F' joins the columns of
the model's logits table, and scores are made from that alone. None of it has a row: it is measured with, not measured."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unlearning import bank, checkpoint, observers, predict, results, scratch, seeds, splits, training
from unlearning.config import Config
from unlearning.errors import BadInput
from unlearning.files import digest, short
from unlearning.follow import held
from unlearning.recipe import Recipe
from unlearning.spread import spread
from unlearning.table import FORGOT, NEVER_SAW, SHADOWS, Array, LogitsTable
from unlearning.workspace import Prepared, mend, prepare

LEARNED = "learned"  # the kind of what has learned and not yet forgotten: its weights are kept, for the next method


def add(prepared: Prepared, name: str) -> None:
    """The columns that the section `evaluate` asks for, where this model's logits table lacks them or has them by other settings; SWAP's
    for each seed where it stands for several. Killed, it goes on.

    A link of the notebook's chain gets none: it began at another link's result. Raises BadInput where the model was made by another recipe
    than the configuration's, by which the others would be, and where validation is too small."""
    asked = prepared.config.evaluate
    method, seed = seeds.parted(name)
    if not (asked.swap or asked.shadows) or method not in {*scratch.STAGE, *prepared.config.methods}:
        return
    if method == "retrained":
        _of_bank(prepared)
        return
    recipe = _recipe(prepared, method, results.logits(prepared, name))
    if asked.swap:
        own = prepared.config.run.seed if seed is None else seed
        tables = {number: seeds.named(name, number) for number in results.seeds_of(prepared, name)} or {own: name}
        sides = [Other(prepared, method, recipe, number, swap=True) for number in tables]
        if any(_lacks(prepared, tables[side.number], "swapped", side.hash) for side in sides):
            for side, logits_NC in zip(sides, _said(sides), strict=True):
                results.widened(prepared, tables[side.number], {"swapped": logits_NC}, {"swapped": side.hash})
    if asked.shadows and seed is None:
        every = [Other(prepared, method, recipe, number) for number in range(asked.shadows)]
        if _lacks(prepared, name, "shadows", by := digest(one.hash for one in every)):
            results.widened(prepared, name, _shadows(prepared, _said(every)), {"shadows": by})


def _of_bank(prepared: Prepared) -> None:
    """A retrained model has no other request to forget: it never saw F, nor F'. The bank's are as many of the same."""
    asked, alike = prepared.config.evaluate, bank.tables(prepared, "retrained")
    by = digest(one.hash for one in alike)
    if alike and asked.swap and _lacks(prepared, "retrained", "swapped", by):
        results.widened(prepared, "retrained", {"swapped": alike[0].logits}, {"swapped": by})
    if alike and asked.shadows and _lacks(prepared, "retrained", "shadows", by):
        results.widened(prepared, "retrained", _shadows(prepared, [one.phi for one in alike]), {"shadows": by})


def _lacks(prepared: Prepared, name: str, column: str, by: str) -> bool:
    return results.logits(prepared, name).about.get(column) != by


def _recipe(prepared: Prepared, method: str, made: LogitsTable) -> Recipe:
    """By which the model was made; of an original nothing, for it forgot nothing."""
    if method == "original":
        return ()
    recipe = replace(prepared.config, method=method).recipe()
    if made.about.get("recipe", repr(recipe)) != repr(recipe):
        raise BadInput(
            f"{method} was made by another recipe than methods.{method} asks for now, and evaluate.swap and evaluate.shadows make others "
            f"by this one; give the values that it was made with, or {mend('unlearn', prepared.config, method=method)} makes it by these"
        )
    return recipe


def _shadows(prepared: Prepared, phi_KN: Sequence[Array]) -> dict[str, Array]:
    """What each shadow says of the pool, and which half of it that one had learned and forgotten."""
    halves = [splits.halved(prepared.splits, prepared.images, number) for number in range(len(phi_KN))]
    role_NK = np.zeros((len(prepared.images.ids), len(halves)), np.uint8)
    for number, (forgotten, unseen) in enumerate(halves):
        role_NK[forgotten, number], role_NK[unseen, number] = FORGOT, NEVER_SAW
    role_NK = role_NK[np.argsort(np.array(prepared.images.ids))]  # as rows of tables stand
    return {SHADOWS[0]: np.where(role_NK > 0, np.stack(phi_KN, axis=1), 0.0).astype(np.float32), SHADOWS[1]: role_NK}


# --- models that learned other images -----------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Other:
    """A model of a kind (a method; original: what did nothing; LEARNED) on another request: a shadow, by number; or SWAP's, by seed."""

    prepared: Prepared
    kind: str
    recipe: Recipe
    number: int
    swap: bool = False

    @property
    def seed(self) -> int:
        return self.number if self.swap else self.prepared.config.run.seed + 1 + self.number

    @property
    def learned(self) -> "Other":
        """What this one began with: of SWAP one for all seeds."""
        config = self.prepared.config
        return replace(self, kind=LEARNED, recipe=scratch.recipe(config, "original"), number=config.run.seed if self.swap else self.number)

    @property
    def known(self) -> dict[str, str]:
        """All that makes it."""
        here = self.prepared
        how = f"{here.config.data.mean} {here.config.data.std} {here.compute.precision}"
        own = {"kind": self.kind, "seed": str(self.seed), "recipe": repr(self.recipe), "architecture": here.config.model.architecture}
        own |= {"original": repr(scratch.recipe(here.config, "original")), "how": how}
        return own | {name: here.hashes[name] for name in ("data", "split")}

    @property
    def hash(self) -> str:
        return digest(f"{key} {value}" for key, value in self.known.items())

    @property
    def path(self) -> Path:
        folder = self.prepared.config.workspace / "others" / ("swapped" if self.swap else "shadows") / self.kind
        return folder / f"{self.number}.safetensors"

    def lies(self) -> bool:
        """Whether its file is there and was made of these."""
        return self.path.exists() and self.known.items() <= checkpoint.metadata(self.path).items()

    def model(self) -> training.Model:
        here = self.prepared
        start = None if self.kind == LEARNED else checkpoint.load(self.learned.path)[0]
        if self.swap:
            return training.Model(self.seed, splits.swapped(here.splits, here.images), start)
        forgotten, unseen = splits.halved(here.splits, here.images, self.number)
        return training.Model(self.seed, {**here.splits, "forget": forgotten, "validation": unseen}, start)


def _said(others: Sequence[Other]) -> list[Array]:
    """What each says, from its file; those that lack are made first, and before them what they began with."""
    lacking = [other for other in others if not other.lies()]
    _fill([*{other.learned.number: other.learned for other in lacking}.values()])
    _fill(lacking)
    return [checkpoint.load(other.path)[0]["said"].numpy() for other in others]


def _fill(others: Sequence[Other]) -> None:
    if all(other.lies() for other in others):
        return
    first = others[0]
    run, label = first.prepared.config.run, f"{first.kind}, {'on the other request' if first.swap else 'shadows'}"
    with held(first.prepared.config.workspace / ".lethe" / "locks" / f"{_states(first).name}.lock", label):
        lacking = [other for other in others if not other.lies()]
        size = training.at_once(first.prepared, first.recipe, len(lacking), label) if first.recipe else len(lacking)
        chunks = [Chunk(tuple(lacking[start : start + size]), label) for start in range(0, len(lacking), max(size, 1))]
        for _ in spread(_make, chunks, workers=run.workers, gpus=run.gpus):
            pass
        shutil.rmtree(_states(first), ignore_errors=True)  # also what a chunk left that was stopped between two of its files


def _states(other: Other) -> Path:
    return other.prepared.config.workspace / ".lethe" / "others" / f"{'swapped' if other.swap else 'shadows'}-{other.kind}"


@dataclass(frozen=True, eq=False)
class Chunk:
    """Models of one kind that are made at once."""

    others: tuple[Other, ...]
    label: str

    def __str__(self) -> str:
        return f"{self.label} {seeds.said([other.number for other in self.others])}"

    def __reduce__(self) -> tuple[Any, ...]:
        one = self.others[0]
        return _elsewhere, (one.prepared.config, one.kind, one.recipe, [other.number for other in self.others], one.swap, self.label)


def _elsewhere(config: Config, kind: str, recipe: Recipe, numbers: Sequence[int], swap: bool, label: str) -> Chunk:
    """In another process, which reads the images by itself."""
    prepared = prepare(config)
    return Chunk(tuple(Other(prepared, kind, recipe, number, swap) for number in numbers), label)


def _make(chunk: Chunk) -> None:
    models, first = [other.model() for other in chunk.others], chunk.others[0]
    if first.recipe:
        key = [*(other.hash for other in chunk.others), first.prepared.compute.device.type]
        resume = observers.Resume(_states(first) / short(digest(key)))
        ends = training.trained(first.prepared, first.recipe, models, resume, str(chunk))
    else:
        ends = (dict(model.start or {}) for model in models)
    for other, tensors in zip(chunk.others, ends, strict=True):
        checkpoint.save(tensors if other.kind == LEARNED else {"said": _read(other, tensors)}, other.path, other.known)


def _read(other: Other, tensors: Mapping[str, Tensor]) -> Tensor:
    """What the model says of F and F' (0 of all else), in the order of tables: logits [N, C] for SWAP, phi [N] of a shadow."""
    here = other.prepared
    network = here.network(0)
    network.load_state_dict(dict(tensors))
    pool = np.concatenate([here.splits["forget"], splits.swapped(here.splits, here.images)["forget"]])
    logits_NC = np.zeros((len(here.images.ids), len(here.images.classes)), np.float32)
    logits_NC[pool] = predict.logits(network, here.data, torch.from_numpy(pool).to(here.data.device)).cpu().numpy()
    no_split = np.zeros(len(logits_NC), np.uint8)
    table = LogitsTable(f"{other.kind} {other.number} on another request", here.images.ids, here.images.labels, no_split, logits_NC)
    return torch.from_numpy(table.logits if other.swap else table.phi.astype(np.float32))
