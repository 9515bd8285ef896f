"""When references may be read after a run's first epoch, and which images they are tried on before it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lethe.config import loader
from lethe.pipeline import reference_sample
from lethe.pipeline.reference_sample import ReferenceSample
from lethe.workspace.plan import plan
from lethe.workspace.prepare import prepare
from lethe.workspace.workspace import Prepared

DIGITS = ("--data.source", "digits", "--data.limit", "60", "--data.forget.fraction", "0.3", "--model.architecture", "convnet")
ONE = ("--method", "model_1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits")
    prepare(loader.load([*DIGITS, *ONE, "--run.workspace", str(folder)]))
    return folder


def prepared(folder: Path, *argv: str) -> Prepared:
    return prepare(loader.load([*DIGITS, *argv, "--run.workspace", str(folder)]))


@pytest.mark.parametrize(
    ("argv", "may"),
    [
        (ONE, True),
        ((*ONE, "--methods.model_1.keep", "best"), False),
        ((*ONE, "--run.seeds", "2"), False),
        ((*ONE, "--run.evaluate", "false"), False),
        (("--method", "as_run"), False),
    ],
)
def test_only_a_single_run_that_is_evaluated_and_keeps_its_last_epoch(folder: Path, argv: tuple[str, ...], may: bool) -> None:
    drawn = prepared(folder, *argv)
    assert (reference_sample.for_run(drawn, plan(drawn.config)) is not None) == may


def test_not_in_a_stage_of_dvc_and_not_of_few_images(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = prepare(loader.load([*DIGITS[:3], "50", *DIGITS[4:], *ONE, "--run.workspace", str(tmp_path)]))
    assert few.images.train == 500 and reference_sample.for_run(few, plan(few.config)) is None
    monkeypatch.setenv("DVC_STAGE", "unlearn")
    drawn = prepared(folder, *ONE)
    assert reference_sample.for_run(drawn, plan(drawn.config)) is None


class Knows(nn.Module):
    """Answers correctly on the images of some splits, by their pixels, and counts those that it is given."""

    def __init__(self, data: Prepared, *splits: str) -> None:
        super().__init__()
        index_N = torch.cat([data.data.splits[name] for name in splits])
        keys = [pixels.numpy().tobytes() for pixels in data.data.normalised(index_N).contiguous()]
        self.labels = dict(zip(keys, data.data.labels_N[index_N].tolist(), strict=True))
        self.seen: list[bytes] = []

    def forward(self, images_BCHW: Tensor) -> Tensor:
        keys = [pixels.numpy().tobytes() for pixels in images_BCHW.contiguous()]
        self.seen += keys
        return torch.eye(11)[[self.labels.get(key, 10) for key in keys]]


def test_what_is_read(folder: Path) -> None:
    drawn = prepared(folder, *ONE)
    sample = ReferenceSample(drawn)
    original, retrained = Knows(drawn, "train", "validation"), Knows(drawn, "retain", "validation")
    one, other = sample.read("original", original), sample.read("retrained", retrained)
    assert (one.own, one.images, one.unseen, one.unseen_images) == (100.0, 500, 100.0, 250)
    assert (other.own, other.unseen) == (100.0, 100.0) and 300 < other.images < 400, "of 500 training images seven tenths are retain"
    assert len(original.seen) == 750 and len(retrained.seen) == 250 + other.images
    assert set(retrained.seen) <= set(original.seen), "both on the same images"
    assert sample.read("original", original) is one and len(original.seen) == 750
    assert sample.leaves_no_doubt()
