"""Original and retrained model on a sample of images, before a run: where it leaves no doubt of them, all images are read after the run's
first epoch, and the run starts sooner."""

import torch
from torch import Tensor
from torch.nn import Module

from lethe._util import dvc_stage
from lethe.config.loader import STAGE
from lethe.data.device_data import Data
from lethe.evaluation import inference, reference
from lethe.evaluation.metrics import accuracy
from lethe.evaluation.reference import TrainedModel
from lethe.models import checkpoint
from lethe.pipeline import given_original
from lethe.recipes.recipe import Phase
from lethe.workspace import artifacts, bank
from lethe.workspace.plan import PlannedRun
from lethe.workspace.workspace import Prepared

VALIDATION = 400  # images


class ReferenceSample:
    """What original and retrained model know of a sample: training images, as many as a given original is tried on, and validation images.

    Args:
        prepared: the images and splits.
        known: by kind, what was read before by the same images; what is read is added to it.
    """

    def __init__(self, prepared: Prepared, known: dict[str, TrainedModel] | None = None) -> None:
        self._prepared = prepared
        self._known = {} if known is None else known

    def read(self, kind: str, network: Module) -> TrainedModel:
        """Read the sample, once a model.

        Args:
            kind: original or retrained.
            network: the model.

        Returns:
            What it knows: of retain alone, if it is a retrained model. A logit that is not finite is never right.
        """
        if kind not in self._known:
            data = self._prepared.data
            own = given_original.sample(data)[: given_original.FIRST]
            if kind == "retrained":
                own = own[torch.isin(own, data.splits["retain"])]
            unseen = _unseen(data)
            right = [_percent(network, data, index) if len(index) else None for index in (own, unseen)]
            self._known[kind] = TrainedModel(right[0] or 0.0, len(own), right[1], len(unseen))
        return self._known[kind]

    def leaves_no_doubt(self) -> bool:
        """Whether the retrained model can be the reference, with room for chance; models that were not read yet are read now."""
        for kind in STAGE:
            if kind not in self._known:
                self.read(kind, self._prepared.loaded(checkpoint.load(self._prepared.layout.weights(kind))[0]))
        return reference.clearly_fit(self._known["original"], self._known["retrained"])


def for_run(prepared: Prepared, runs: tuple[PlannedRun, ...], known: dict[str, TrainedModel] | None = None) -> ReferenceSample | None:
    """Return a sample if the full reading may follow a command's first epoch.

    Args:
        prepared: the images and splits.
        runs: of the command.
        known: as for `ReferenceSample`.

    Returns:
        None for a chain and for several seeds; where the run's start must be measured before it, for it could be the best epoch; where
        nothing is evaluated, or by another stage of DVC; where a bank is the reference; and where all images are hardly more.
    """
    first, *others = runs
    single = not others and first.run.seed is None and first.run.chain is None
    ranked = any(phase.keep == "best" for phase in first.recipe if isinstance(phase, Phase))
    few = prepared.images.train <= given_original.FIRST
    evaluated = prepared.config.run.evaluate and not dvc_stage.active()
    if not single or ranked or few or not evaluated or bank.tables(prepared, "retrained"):
        return None
    return ReferenceSample(prepared, known)


def is_read(prepared: Prepared, kind: str) -> bool:
    """Return whether all images of a reference are read: it has a logits table that is current, and an epoch table.

    Args:
        prepared: the images and splits.
        kind: original or retrained.
    """
    return prepared.layout.epochs(kind).exists() and artifacts.current_logits(prepared, kind) is not None


def _unseen(data: Data) -> Tensor:
    """At most VALIDATION images of validation, of the classes that retain holds, drawn by a fixed seed."""
    index = data.splits["validation"]
    index = index[torch.isin(data.labels_N[index], data.labels_N[data.splits["retain"]])]
    drawn = torch.randperm(len(index), generator=torch.Generator().manual_seed(0))[:VALIDATION]
    return index[drawn.to(index.device)]


def _percent(network: Module, data: Data, index: Tensor) -> float:
    logits_NC = inference.logits(network, data, index)
    return accuracy(logits_NC, data.labels_N[index]) if torch.isfinite(logits_NC).all() else 0.0
