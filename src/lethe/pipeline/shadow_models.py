"""The method on other deletion requests: models that two attacks need, and what those models compute for this request's images.

SWAP (evaluate.swap): a second original learned F' in place of the forget set F, and the method forgets F'. U-LiRA (evaluate.shadows):
shadow models, each of which learned and forgot one half of F and F'. F' is drawn from validation. Their outputs on F and F' become columns
of the measured model's logits table, and scores are computed from that table alone. They have no MLflow runs: they serve to measure."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing
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
from lethe.evaluation import inference, seed_aggregation
from lethe.evaluation.logits_table import FORGOT, NEVER_SAW, SHADOWS, SWAPPED, Array, LogitsTable
from lethe.evaluation.metrics import accuracy
from lethe.evaluation.reference import VALIDATION_LIMIT
from lethe.evaluation.score import accuracy_and_loss
from lethe.models import checkpoint
from lethe.parallel.pool import map_units
from lethe.pipeline import batch_training
from lethe.pipeline.runner import held
from lethe.recipes.recipe import Recipe, same
from lethe.workspace import artifacts, bank, read_model
from lethe.workspace.prepare import prepare
from lethe.workspace.provenance import matches
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared, initial_weights

LEARNED = "original.learned"  # the kind of a model that has not unlearned yet: its weights are kept, for the next method
OUTPUTS = "said"  # tensor key of a model's outputs in its file: existing files have it, so it is not renamed


def check(prepared: Prepared, name: str) -> None:
    """Check that the attacks that `evaluate` asks for can be made, before anything is trained.

    Args:
        prepared: the images and splits.
        name: of the measured model.

    Raises:
        UserError: the model was made by another recipe than the configuration's, by which the shadow models would be; or its logits can't
            be read (as `artifacts.logits`); or validation is too small to draw F' from.
    """
    asked, method = prepared.config.evaluate, str(RunId.parse(name).all_seeds)
    if (asked.swap or asked.shadows) and method in prepared.config.methods:
        _recipe(prepared, name)
    if asked.swap or asked.shadows:
        swapped(prepared.splits, prepared.images)


def add(prepared: Prepared, name: str) -> None:
    """Add the columns that the section `evaluate` asks for to a model's logits table, where they are missing or of other settings.

    Of a result of several seeds SWAP's columns are added to each seed's table. Resumes what an earlier process began.

    Args:
        prepared: the images and splits.
        name: of the measured model.

    Raises:
        UserError: as `check`.
        RunFailed: a model diverged, or another process trains them.
    """
    asked = prepared.config.evaluate
    run = RunId.parse(name)
    method, seed = str(run.all_seeds), run.seed
    if not (asked.swap or asked.shadows):
        return
    if method == "retrained":
        _add_from_bank(prepared)
        return
    if method != "original" and method not in prepared.config.methods:
        log(f"{name}: evaluate.swap and evaluate.shadows do not apply to a link of a chain, which started from another link's result")
        return
    recipe = _recipe(prepared, name)
    if asked.swap:
        own = prepared.config.run.seed if seed is None else seed
        tables = {number: str(run.with_seed(number)) for number in artifacts.seeds_of(prepared, name)} or {own: name}
        models = [ShadowModel(prepared, method, recipe, number, swap=True) for number in tables]
        if any(_lacks(prepared, tables[model.number], "swapped", model.hash) for model in models):
            for model, logits_NC in zip(models, _outputs(models), strict=True):
                artifacts.add_columns(prepared, tables[model.number], {SWAPPED: logits_NC}, {"swapped": model.hash})
    if asked.shadows and seed is None:
        existing = artifacts.logits(prepared, name).columns.get(SHADOWS[0], np.zeros((0, 0))).shape[1]
        for number in sorted({asked.shadows, max(existing, asked.shadows)}, reverse=True):  # more than asked for are kept
            models = [ShadowModel(prepared, method, recipe, shadow) for shadow in range(number)]
            if not _lacks(prepared, name, "shadows", by := digest(model.hash for model in models)):
                return
        artifacts.add_columns(prepared, name, _columns(prepared, _outputs(models)), {"shadows": by})


def _add_from_bank(prepared: Prepared) -> None:
    """A retrained model never saw F nor F', so it has no other request to unlearn: the bank's retrained models are its shadow models."""
    asked, models = prepared.config.evaluate, bank.tables(prepared, "retrained")
    if not models:
        log("retrained: evaluate.swap and evaluate.shadows need a bank of retrained models (retrain.seeds), and there is none")
        return
    by = digest(model.hash for model in models)
    if asked.swap and _lacks(prepared, "retrained", "swapped", by):
        artifacts.add_columns(prepared, "retrained", {SWAPPED: models[0].logits}, {"swapped": by})
    if asked.shadows and _lacks(prepared, "retrained", "shadows", by):
        artifacts.add_columns(prepared, "retrained", _columns(prepared, [model.phi for model in models]), {"shadows": by})


def _lacks(prepared: Prepared, name: str, column: str, by: str) -> bool:
    return artifacts.logits(prepared, name).about.get(column) != by


def _recipe(prepared: Prepared, name: str) -> Recipe:
    """Return the recipe that the model was made by; the original unlearned nothing: ()."""
    config, method = prepared.config, str(RunId.parse(name).all_seeds)
    if method == "original":
        return ()
    recipe = replace(config, method=method).recipe()
    if not same(artifacts.logits(prepared, name).about.get("recipe", repr(recipe)), repr(recipe)):
        several = [*artifacts.seeds_of(prepared, name)]
        given = {key: value for key, value in config.given.items() if key.startswith(f"methods.{method}.")}
        given |= {"run.seed": str(min(several)), "run.seeds": str(len(several))} if several else {}
        again = repair_command("unlearn", config, method=method, **given)
        raise UserError(
            f"{name} was made by another recipe than methods.{method} asks for now, and evaluate.swap and evaluate.shadows make others "
            f"by this one; give the values that it was made with, or {again} makes it by these"
        )
    return recipe


def _columns(prepared: Prepared, phi_KN: Sequence[Array]) -> dict[str, Array]:
    """Return the shadow columns: phi [N, K] of each of K shadow models on F and F', and which half each of them learned and forgot."""
    halves = [halved(prepared.splits, prepared.images, number) for number in range(len(phi_KN))]
    role_NK = np.zeros((len(prepared.images.ids), len(halves)), np.uint8)
    for number, (forgotten, unseen) in enumerate(halves):
        role_NK[forgotten, number], role_NK[unseen, number] = FORGOT, NEVER_SAW
    role_NK = role_NK[np.argsort(np.array(prepared.images.ids))]  # the order of rows in a table
    return {SHADOWS[0]: np.where(role_NK > 0, np.stack(phi_KN, axis=1), 0.0).astype(np.float32), SHADOWS[1]: role_NK}


# --- training them ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ShadowModel:
    """A model on another deletion request.

    Attributes:
        prepared: the images, and the splits of this request.
        kind: the method; `original`, which unlearns nothing; or LEARNED.
        recipe: by which it is trained or unlearned.
        number: of a shadow model, which decides its half of F and F'; of SWAP the seed.
        swap: whether it is SWAP's.
    """

    prepared: Prepared
    kind: str
    recipe: Recipe
    number: int
    swap: bool = False

    @property
    def seed(self) -> int:
        """The seed of its weights and batches: of SWAP the number itself, of a shadow model run.seed + 1 + number."""
        return self.number if self.swap else self.prepared.config.run.seed + 1 + self.number

    @property
    def learned(self) -> "ShadowModel":
        """The model that it starts from, which learned the other request's images: of SWAP one for all seeds."""
        config = self.prepared.config
        return replace(
            self, kind=LEARNED, recipe=self.prepared.reference_recipe("original"), number=config.run.seed if self.swap else self.number
        )

    @property
    def metadata(self) -> dict[str, str]:
        """All that it depends on."""
        here = self.prepared
        how = f"{here.config.data.mean} {here.config.data.std} {here.config.run.precision}"
        own = {"kind": self.kind, "seed": str(self.seed), "recipe": repr(self.recipe), "architecture": here.config.model.architecture}
        if here.config.pretrain.init:
            own["init"] = initial_weights(here.config)
        own |= {"how": how} | {name: here.hashes[name] for name in ("data", "split")}
        if self.kind == LEARNED:
            return own
        return own | {"learned": self.learned.hash, "reading": read_model.arithmetic_hash()}

    @property
    def hash(self) -> str:
        """Hash of `metadata`."""
        return digest(f"{key} {value}" for key, value in self.metadata.items())

    @property
    def path(self) -> Path:
        """Its file, which need not exist."""
        return self.prepared.layout.shadow(self.kind, self.number, swap=self.swap)

    def exists(self) -> bool:
        """Whether its file exists and belongs to these settings."""
        return self.path.exists() and matches(self.metadata, checkpoint.metadata(self.path))

    def spec(self) -> batch_training.ModelSpec:
        """What to train: its seed, the splits of the other request, and the weights of `learned`; of that model itself, random weights."""
        here = self.prepared
        start = None if self.kind == LEARNED else checkpoint.load(self.learned.path)[0]
        other = swapped(here.splits, here.images)
        forgotten, unseen = (other["forget"], here.splits["forget"]) if self.swap else halved(here.splits, here.images, self.number)
        rest = np.setdiff1d(here.splits["validation"], other["forget"])
        # a recipe that keeps its best epoch must not choose it by images that the attacks look at, if there are any others
        splits = {**here.splits, "forget": forgotten, "validation": rest if len(rest) else unseen}
        return batch_training.ModelSpec(self.seed, splits, start)


def _outputs(models: Sequence[ShadowModel]) -> list[Array]:
    """Return each model's outputs from its file. Models without one are trained first, and before them what they start from."""
    if not all(model.exists() for model in models):
        _make([*{model.learned.number: model.learned for model in models}.values()])
        _make(models)
    return [checkpoint.load(model.path)[0][OUTPUTS].numpy() for model in models]


def _make(models: Sequence[ShadowModel]) -> None:
    """Train the models whose files are missing. They are divided into the same units whatever exists: a stopped unit is resumed."""
    first, missing = models[0], [model for model in models if not model.exists()]
    run, label = first.prepared.config.run, f"{first.kind}, {'on the other request' if first.swap else 'shadows'}"
    if not missing:
        return
    with held(first.prepared.layout.lock(_state_folder(first).name), label):
        parts = batch_training.stacks(first.prepared, first.recipe, models, label) if first.recipe else [tuple(models)]
        units = [WorkUnit(part, label) for part in parts]
        try:
            for _ in map_units(_run, [unit for unit in units if not unit.exists()], workers=run.workers, gpus=run.gpus):
                pass
        except KeyboardInterrupt:
            log(f"{label}: stopped; the same command resumes")
            raise
        shutil.rmtree(_state_folder(first), ignore_errors=True)
    if not all(model.exists() for model in models):
        raise RunFailed(f"{label}: other processes made them by other settings than this one's")


def _state_folder(model: ShadowModel) -> Path:
    return model.prepared.layout.shadow_state(model.kind, swap=model.swap)


@dataclass(frozen=True, eq=False)
class WorkUnit:
    """Models of one kind that are trained in one run."""

    models: tuple[ShadowModel, ...]
    label: str

    def __str__(self) -> str:
        return f"{self.label} {seed_aggregation.seed_range([model.number for model in self.models])}"

    def exists(self) -> bool:
        """Whether all its models have files that belong to these settings."""
        return all(model.exists() for model in self.models)

    def __reduce__(self) -> tuple[Any, ...]:
        one = self.models[0]
        numbers = [model.number for model in self.models]
        return _in_another_process, (one.prepared.config, one.kind, one.recipe, numbers, one.swap, self.label)


def _in_another_process(config: Config, kind: str, recipe: Recipe, numbers: Sequence[int], swap: bool, label: str) -> WorkUnit:
    """Read the images again: they are not sent."""
    prepared = prepare(config)
    return WorkUnit(tuple(ShadowModel(prepared, kind, recipe, number, swap) for number in numbers), label)


def _run(unit: WorkUnit) -> None:
    first = unit.models[0]
    if first.recipe:
        key = [*(model.hash for model in unit.models), first.prepared.compute.device.type]
        resume = Resume(_state_folder(first) / short(digest(key)))
        ends = batch_training.train(first.prepared, first.recipe, [model.spec() for model in unit.models], resume, str(unit))
    else:
        ends = (checkpoint.load(model.learned.path)[0] for model in unit.models)
    with closing(ends):
        for model, tensors in zip(unit.models, ends, strict=True):
            if model.kind == LEARNED:
                _check_learned(model, tensors)
            if not model.exists():
                checkpoint.save(tensors if model.kind == LEARNED else {OUTPUTS: _read(model, tensors)}, model.path, model.metadata)


def _check_learned(model: ShadowModel, tensors: Mapping[str, Tensor]) -> None:
    """Compare a model trained here in place of a given original with that original: pretrain.* may describe another training.

    Raises:
        UserError: its validation accuracy is far below.
    """
    here = model.prepared
    if here.config.pretrain.checkpoint is None:
        return
    rows = torch.from_numpy(model.spec().splits["validation"]).to(here.data.device)
    network = here.loaded(tensors)
    own = accuracy(inference.logits(network, here.data, rows), here.data.labels_N[rows])
    given = accuracy_and_loss(artifacts.logits(here, "original"))[0]["validation"]
    if given - own > VALIDATION_LIMIT:
        raise UserError(
            f"pretrain.checkpoint is {here.config.pretrain.checkpoint}, right on {given:.1f} % of validation images; what pretrain.* "
            f"trains on other images for evaluate.swap and evaluate.shadows is right on {own:.1f} %; set it to what made that file"
        )


def _read(model: ShadowModel, tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the model's outputs on F and F' (0 for all other images), in the order of tables: logits [N, C] for SWAP, phi [N] else."""
    here = model.prepared
    network = here.loaded(tensors)
    pool = np.concatenate([here.splits["forget"], swapped(here.splits, here.images)["forget"]])
    logits_NC = np.zeros((len(here.images.ids), len(here.images.classes)), np.float32)
    logits_NC[pool] = inference.logits(network, here.data, torch.from_numpy(pool).to(here.data.device)).cpu().numpy()
    if not np.isfinite(logits_NC).all():
        raise RunFailed(f"{model.kind} {model.number}: its logits are not all finite: it diverged")
    no_split = np.zeros(len(logits_NC), np.uint8)
    table = LogitsTable(f"{model.kind} {model.number} on another request", here.images.ids, here.images.labels, no_split, logits_NC)
    return torch.from_numpy(table.logits if model.swap else table.phi.astype(np.float32))
