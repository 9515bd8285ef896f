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

from lethe._util.errors import RunFailed, UserError
from lethe._util.files import digest, short
from lethe._util.log import log
from lethe.config.loader import Config
from lethe.data.shadow_splits import halved, swapped
from lethe.engine.resume import Resume
from lethe.evaluation import inference as predict
from lethe.evaluation import seed_aggregation as seeds
from lethe.evaluation.logits_table import FORGOT, NEVER_SAW, SHADOWS, SWAPPED, Array, LogitsTable
from lethe.evaluation.metrics import accuracy
from lethe.evaluation.score import accuracy_and_loss
from lethe.models import checkpoint
from lethe.parallel.pool import map_units
from lethe.pipeline import batch_training as training
from lethe.pipeline.runner import held
from lethe.recipes.recipe import Recipe, same
from lethe.workspace import bank
from lethe.workspace import read_model as reading
from lethe.workspace import scores as results
from lethe.workspace.provenance import matches
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared, prepare

LEARNED = "original.learned"  # the kind of what has learned and not yet forgotten: its weights are kept, for the next method


def check(prepared: Prepared, name: str) -> None:
    """Raises UserError, before anything is trained, where the model was made by another recipe than the configuration's, by which
    the others would be, and where validation is too small."""
    asked, method = prepared.config.evaluate, str(RunId.parse(name).all_seeds)
    if (asked.swap or asked.shadows) and method in prepared.config.methods:
        _recipe(prepared, name)
    if asked.swap or asked.shadows:
        swapped(prepared.splits, prepared.images)


def add(prepared: Prepared, name: str) -> None:
    """The columns that the section `evaluate` asks for, where this model's logits table lacks them or has them by other settings; SWAP's
    for each seed where it stands for several. Killed, it goes on. Raises what `check` does."""
    asked = prepared.config.evaluate
    run = RunId.parse(name)
    method, seed = str(run.all_seeds), run.seed
    if not (asked.swap or asked.shadows):
        return
    if method == "retrained":
        _of_bank(prepared)
        return
    if method != "original" and method not in prepared.config.methods:
        log(f"{name}: evaluate.swap and evaluate.shadows have nothing for a link of the chain, which began at another link's result")
        return
    recipe = _recipe(prepared, name)
    if asked.swap:
        own = prepared.config.run.seed if seed is None else seed
        tables = {number: str(run.with_seed(number)) for number in results.seeds_of(prepared, name)} or {own: name}
        sides = [Other(prepared, method, recipe, number, swap=True) for number in tables]
        if any(_lacks(prepared, tables[side.number], "swapped", side.hash) for side in sides):
            for side, logits_NC in zip(sides, _said(sides), strict=True):
                results.widened(prepared, tables[side.number], {SWAPPED: logits_NC}, {"swapped": side.hash})
    if asked.shadows and seed is None:
        there = results.logits(prepared, name).columns.get(SHADOWS[0], np.zeros((0, 0))).shape[1]
        for number in sorted({asked.shadows, max(there, asked.shadows)}, reverse=True):  # more than are asked for stay
            every = [Other(prepared, method, recipe, shadow) for shadow in range(number)]
            if not _lacks(prepared, name, "shadows", by := digest(one.hash for one in every)):
                return
        results.widened(prepared, name, _shadows(prepared, _said(every)), {"shadows": by})


def _of_bank(prepared: Prepared) -> None:
    """A retrained model has no other request to forget: it never saw F, nor F'. The bank's are as many of the same."""
    asked, alike = prepared.config.evaluate, bank.tables(prepared, "retrained")
    if not alike:
        log("retrained: evaluate.swap and evaluate.shadows take a bank of retrained models beside it (retrain.seeds), and there is none")
        return
    by = digest(one.hash for one in alike)
    if asked.swap and _lacks(prepared, "retrained", "swapped", by):
        results.widened(prepared, "retrained", {SWAPPED: alike[0].logits}, {"swapped": by})
    if asked.shadows and _lacks(prepared, "retrained", "shadows", by):
        results.widened(prepared, "retrained", _shadows(prepared, [one.phi for one in alike]), {"shadows": by})


def _lacks(prepared: Prepared, name: str, column: str, by: str) -> bool:
    return results.logits(prepared, name).about.get(column) != by


def _recipe(prepared: Prepared, name: str) -> Recipe:
    """By which the model was made; of an original nothing, for it forgot nothing."""
    config, method = prepared.config, str(RunId.parse(name).all_seeds)
    if method == "original":
        return ()
    recipe = replace(config, method=method).recipe()
    if not same(results.logits(prepared, name).about.get("recipe", repr(recipe)), repr(recipe)):
        several = [*results.seeds_of(prepared, name)]
        given = {key: value for key, value in config.given.items() if key.startswith(f"methods.{method}.")}
        given |= {"run.seed": str(min(several)), "run.seeds": str(len(several))} if several else {}
        again = repair_command("unlearn", config, method=method, **given)
        raise UserError(
            f"{name} was made by another recipe than methods.{method} asks for now, and evaluate.swap and evaluate.shadows make others "
            f"by this one; give the values that it was made with, or {again} makes it by these"
        )
    return recipe


def _shadows(prepared: Prepared, phi_KN: Sequence[Array]) -> dict[str, Array]:
    """What each shadow says of the pool, and which half of it that one had learned and forgotten."""
    halves = [halved(prepared.splits, prepared.images, number) for number in range(len(phi_KN))]
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
        return replace(self, kind=LEARNED, recipe=config.reference_recipe("original"), number=config.run.seed if self.swap else self.number)

    @property
    def known(self) -> dict[str, str]:
        """All that makes it, and what is kept of it."""
        here = self.prepared
        how = f"{here.config.data.mean} {here.config.data.std} {here.config.run.precision}"
        own = {"kind": self.kind, "seed": str(self.seed), "recipe": repr(self.recipe), "architecture": here.config.model.architecture}
        own |= {"how": how} | {name: here.hashes[name] for name in ("data", "split")}
        if self.kind == LEARNED:
            return own
        return own | {"learned": self.learned.hash, "reading": reading.code()}

    @property
    def hash(self) -> str:
        return digest(f"{key} {value}" for key, value in self.known.items())

    @property
    def path(self) -> Path:
        return self.prepared.layout.shadow(self.kind, self.number, swap=self.swap)

    def lies(self) -> bool:
        """Whether its file is there and was made of these."""
        return self.path.exists() and matches(self.known, checkpoint.metadata(self.path))

    def model(self) -> training.Model:
        here = self.prepared
        start = None if self.kind == LEARNED else checkpoint.load(self.learned.path)[0]
        other = swapped(here.splits, here.images)
        forgotten, unseen = (other["forget"], here.splits["forget"]) if self.swap else halved(here.splits, here.images, self.number)
        rest = np.setdiff1d(here.splits["validation"], other["forget"])
        # what keeps its best epoch chooses by images that no attack looks at, as long as there are any
        return training.Model(self.seed, {**here.splits, "forget": forgotten, "validation": rest if len(rest) else unseen}, start)


def _said(others: Sequence[Other]) -> list[Array]:
    """What each says, from its file; those that lack are made first, and before them what they began with."""
    lacking = [other for other in others if not other.lies()]
    if lacking:
        _fill([*{other.learned.number: other.learned for other in others}.values()])
        _fill(others)
    return [checkpoint.load(other.path)[0]["said"].numpy() for other in others]


def _fill(others: Sequence[Other]) -> None:
    """Cut into the same chunks whatever is there, so that what was stopped is gone on with."""
    first, lacking = others[0], [other for other in others if not other.lies()]
    run, label = first.prepared.config.run, f"{first.kind}, {'on the other request' if first.swap else 'shadows'}"
    if not lacking:
        return
    with held(first.prepared.layout.lock(_states(first).name), label):
        size = training.at_once(first.prepared, first.recipe, len(others), label) if first.recipe else len(others)
        chunks = [Chunk(tuple(others[start : start + size]), label) for start in range(0, len(others), size)]
        try:
            for _ in map_units(_make, [chunk for chunk in chunks if not chunk.lies()], workers=run.workers, gpus=run.gpus):
                pass
        except KeyboardInterrupt:
            log(f"{label}: stopped; the same command goes on")
            raise
        shutil.rmtree(_states(first), ignore_errors=True)
    if not all(other.lies() for other in others):
        raise RunFailed(f"{label}: what other processes made is not what this one asks for")


def _states(other: Other) -> Path:
    return other.prepared.layout.shadow_state(other.kind, swap=other.swap)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Models of one kind that are made at once."""

    others: tuple[Other, ...]
    label: str

    def __str__(self) -> str:
        return f"{self.label} {seeds.seed_range([other.number for other in self.others])}"

    def lies(self) -> bool:
        return all(other.lies() for other in self.others)

    def __reduce__(self) -> tuple[Any, ...]:
        one = self.others[0]
        return _elsewhere, (one.prepared.config, one.kind, one.recipe, [other.number for other in self.others], one.swap, self.label)


def _elsewhere(config: Config, kind: str, recipe: Recipe, numbers: Sequence[int], swap: bool, label: str) -> Chunk:
    """In another process, which reads the images by itself."""
    prepared = prepare(config)
    return Chunk(tuple(Other(prepared, kind, recipe, number, swap) for number in numbers), label)


def _make(chunk: Chunk) -> None:
    first = chunk.others[0]
    if first.recipe:
        key = [*(other.hash for other in chunk.others), first.prepared.compute.device.type]
        resume = Resume(_states(first) / short(digest(key)))
        ends = training.trained(first.prepared, first.recipe, [other.model() for other in chunk.others], resume, str(chunk))
    else:
        ends = (checkpoint.load(other.learned.path)[0] for other in chunk.others)
    for other, tensors in zip(chunk.others, ends, strict=True):
        if other.kind == LEARNED:
            _check_learned(other, tensors)
        if not other.lies():
            checkpoint.save(tensors if other.kind == LEARNED else {"said": _read(other, tensors)}, other.path, other.known)


def _check_learned(other: Other, tensors: Mapping[str, Tensor]) -> None:
    """Where the original is someone's file, what is trained here to stand for it may be by quite another recipe."""
    here = other.prepared
    if here.config.pretrain.checkpoint is None:
        return
    rows = torch.from_numpy(other.model().splits["validation"]).to(here.data.device)
    network = here.network(0)
    network.load_state_dict(dict(tensors))
    own = accuracy(predict.logits(network, here.data, rows), here.data.labels_N[rows])
    theirs = accuracy_and_loss(results.logits(here, "original"))[0]["validation"]
    if theirs - own > results.WEAK:
        raise UserError(
            f"pretrain.checkpoint is {here.config.pretrain.checkpoint}, right on {theirs:.1f} % of validation images; what pretrain.* "
            f"trains on other images for evaluate.swap and evaluate.shadows is right on {own:.1f} %; set it to what made that file"
        )


def _read(other: Other, tensors: Mapping[str, Tensor]) -> Tensor:
    """What the model says of F and F' (0 of all else), in the order of tables: logits [N, C] for SWAP, phi [N] of a shadow."""
    here = other.prepared
    network = here.network(0)
    network.load_state_dict(dict(tensors))
    pool = np.concatenate([here.splits["forget"], swapped(here.splits, here.images)["forget"]])
    logits_NC = np.zeros((len(here.images.ids), len(here.images.classes)), np.float32)
    logits_NC[pool] = predict.logits(network, here.data, torch.from_numpy(pool).to(here.data.device)).cpu().numpy()
    if not np.isfinite(logits_NC).all():
        raise RunFailed(f"{other.kind} {other.number}: its logits are not all finite: it diverged")
    no_split = np.zeros(len(logits_NC), np.uint8)
    table = LogitsTable(f"{other.kind} {other.number} on another request", here.images.ids, here.images.labels, no_split, logits_NC)
    return torch.from_numpy(table.logits if other.swap else table.phi.astype(np.float32))
