"""Given models of which a sample leaves no doubt are read after a run's first epoch: the same files to the byte, and nothing is missed."""

import signal
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy

from lethe.config import loader
from lethe.models import architectures, checkpoint
from lethe.workspace.prepare import prepare
from support.project import Project, Warm, at_file, at_step, copied

KEYS = ["--data.limit", "60", "--data.forget.fraction", "0.1"]
METHOD = ["--method", "model_1", "--methods.model_1.batch_size", "64"]
TWO_EPOCHS = [*METHOD, "--methods.model_1.epochs", "2"]
FOLDERS = ("epochs", "logits", "models", "scores")


@pytest.fixture(scope="module")
def trained(built: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Keys that give an original and a retrained model of 540 and 60 digits, which know their training images."""
    folder, keys = tmp_path_factory.mktemp("given"), []
    config = loader.load([*KEYS, "--run.workspace", str(folder / "work")], params=built / "params.yaml")
    data = prepare(config).data
    for stage, split in (("pretrain", "train"), ("retrain", "retain")):
        network = architectures.build(config.model.architecture, 10, 1).train()
        optimizer = torch.optim.SGD(network.parameters(), 0.05, 0.9)
        for epoch in range(6):
            order = torch.randperm(len(data.splits[split]), generator=torch.Generator().manual_seed(epoch))
            for batch in data.splits[split][order].split(64):
                optimizer.zero_grad()
                torch.autograd.backward(cross_entropy(network(data.normalised(batch)), data.labels_N[batch]))
                optimizer.step()
        torch.save(network.state_dict(), folder / f"{stage}.pth")
        keys += [f"--{stage}.checkpoint", str(folder / f"{stage}.pth")]
    return [*KEYS, *keys]


def made(project: Project) -> dict[str, bytes]:
    return {str(path.relative_to(project.root)): path.read_bytes() for name in FOLDERS for path in (project.root / name).iterdir()}


def test_given_models_are_read_after_the_first_epoch(bare: Project, built: Path, warm: Warm, tmp_path: Path, trained: list[str]) -> None:
    at_once = copied(built, tmp_path / "at_once", warm, "data", *FOLDERS)
    for stage in ("pretrain", "retrain"):
        at_once.ran(stage, *trained)
    before = at_once.ran("unlearn", *trained, *TWO_EPOCHS)
    assert "reading 1,100 images into" not in before.stderr
    done = bare.ran("unlearn", *trained, *TWO_EPOCHS)
    places = [done.stderr.index(text) for text in ("phase ", "original: reading", "retrained: reading", "start ", " 1/2", " 2/2")]
    assert places == sorted(places), done.stderr
    assert done.stdout == before.stdout
    assert made(bare) == made(at_once)
    (row,), (other,) = bare.rows(method="model_1"), at_once.rows(method="model_1")
    for key in ("retain.accuracy", "forget.loss", "gap"):
        assert row["metrics"][key] == other["metrics"][key] and [step for step, _ in row["metrics"][key]][:3] == [0, 1, 2]


FIRST, ORIGINAL, SECOND, RETRAINED = at_step(3), at_file("original.csv"), at_step(3), at_file("retrained.csv")


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "moments"), [("1", (FIRST, ORIGINAL, RETRAINED)), ("2", (FIRST, ORIGINAL, SECOND, RETRAINED))])
def test_killed_before_and_while_they_are_read(
    bare: Project, built: Path, warm: Warm, tmp_path: Path, trained: list[str], epochs: str, moments: tuple[dict[str, str], ...]
) -> None:
    keys = [*trained, *METHOD, "--methods.model_1.epochs", epochs]
    done = bare.ran("unlearn", *keys)
    killed = copied(built, tmp_path / "killed", warm, "data", *FOLDERS)
    for moment in moments:
        stopped = killed.run("unlearn", *keys, **moment)
        assert stopped.returncode == -signal.SIGKILL, stopped.stderr
    assert "resuming after epoch 1" in stopped.stderr
    assert killed.ran("unlearn", *keys).stdout == done.stdout
    assert made(killed) == made(bare)
    (row,), (other,) = killed.rows(method="model_1"), bare.rows(method="model_1")
    assert row["status"] == "FINISHED" and row["metrics"]["gap"] == other["metrics"]["gap"]


def test_what_a_sample_leaves_in_doubt_is_decided_before_the_first_step(bare: Project, trained: list[str], tmp_path: Path) -> None:
    weights = architectures.build("convnet", 10, 7).state_dict()
    torch.save(weights, tmp_path / "untrained.pth")
    done = bare.ran("unlearn", *trained[:-1], str(tmp_path / "untrained.pth"), *TWO_EPOCHS)
    places = [done.stderr.index(text) for text in ("original: reading", "retrained: reading", "is no reference", "phase ")]
    assert places == sorted(places), done.stderr
    assert checkpoint.metadata(bare.root / "models" / "retrained.safetensors")["provenance"] == "unknown"
    known = torch.load(trained[-3])
    broken = {name: torch.full_like(value, 3e38) if name == "fc.weight" else value for name, value in known.items()}
    torch.save(broken, tmp_path / "broken.pth")  # finite weights, infinite logits
    given = ["--pretrain.checkpoint", str(tmp_path / "broken.pth"), *trained[-2:]]
    refused = bare.run("unlearn", *KEYS, *given, "--run.workspace", "other", *TWO_EPOCHS)
    assert refused.returncode == 2 and "the logits of" in refused.stderr and "are not all finite" in refused.stderr


@pytest.mark.slow
def test_a_start_that_was_put_off_is_measured_by_a_command_that_evaluates_nothing(bare: Project, trained: list[str]) -> None:
    keys = [*trained, *METHOD, "--methods.model_1.epochs", "1"]
    table = at_file("original.safetensors", 2)  # after its weights
    assert bare.run("unlearn", *keys, **table).returncode == -signal.SIGKILL
    assert "resuming after epoch 1" in bare.ran("unlearn", *keys, "--run.evaluate", "false").stderr
    start = (bare.root / "epochs" / "model_1.csv").read_text()
    bare.ran("unlearn", *keys)
    assert start == (bare.root / "epochs" / "model_1.csv").read_text()
