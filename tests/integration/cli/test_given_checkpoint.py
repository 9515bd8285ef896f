"""Models that are given: what they cost and where they come from."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lethe._util.files import read_json
from lethe._util.integrity import digest_file
from lethe.models import architectures as model
from lethe.models import checkpoint, fitting, foreign
from support.project import ROOT, Project

Weights = dict[str, Tensor]


@pytest.fixture
def weights() -> Weights:
    return model.build("convnet", 10, 7).state_dict()


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- all the way ----------------------------------------------------------------------------------------------------


def test_given_original_and_retrained(project: Project, weights: Weights) -> None:
    """Provenance unknown: said in the log and on the row; a method starts from them."""
    for name in ("original", "retrained"):
        for made in project.root.glob(f"*/{name}.*"):
            made.unlink()
    torch.save({"state_dict": weights}, project.root / "a b.pth")
    sum_ = hashlib.sha256((project.root / "a b.pth").read_bytes()).hexdigest()
    given = [
        "--pretrain.checkpoint",
        "a b.pth",
        "--retrain.checkpoint",
        f"file://{project.root}/a b.pth#sha256={sum_}".replace("a b", "a%20b"),
    ]
    done = project.ran("unlearn", "--method", "model_1", "--methods.model_1.epochs", "0", *given)
    for name in ("original", "retrained"):
        assert f"{name}: " in done.stderr
        assert done.stderr.count("provenance unknown") == 2
        tensors, known = checkpoint.load(project.root / "models" / f"{name}.safetensors")
        assert equal(tensors, weights)
        assert (known["provenance"], known["sha256"]) == ("unknown", sum_)
        (row,) = project.rows(method=name)
        assert row["params"]["provenance"] == "unknown"
        assert row["metrics"]["forget.accuracy"][0][0] == 0
    assert sum_ in done.stderr
    assert equal(checkpoint.load(project.root / "models" / "model_1.safetensors")[0], weights)
    (row,) = project.rows(method="model_1")
    logged = project.root / "mlruns" / "0" / row["run_id"] / "artifacts" / "epochs.csv"
    assert logged.read_bytes() == (project.root / "epochs" / "model_1.csv").read_bytes(), "also of a recipe without epochs"
    again = project.run("unlearn", "--method", "model_1", "--methods.model_1.epochs", "0")
    assert again.returncode == 2, "what was given is not what params.yaml asks for"
    assert "models/original.safetensors does not belong" in again.stderr


def test_nothing_is_compared_with_a_reference_that_did_not_learn(project: Project, weights: Weights) -> None:
    """It is said before anything is unlearned, and again with the results; scores and rows have no word by it."""
    torch.save(weights, project.root / "untrained.pth")
    (project.root / "models" / "retrained.safetensors").unlink()
    short = ["--method", "model_1", "--methods.model_1.epochs", "1", "--retrain.checkpoint", "untrained.pth"]
    done = project.ran("unlearn", *short)
    line = next(each for each in done.stderr.splitlines() if "no reference" in each)
    assert "% of retain right, where the original gets" in line and "give a retrain.checkpoint" in line
    assert done.stderr.index(line) < done.stderr.index("model_1")
    assert line.removeprefix("lethe: ") in done.stdout and "(+" not in done.stdout and "(-" not in done.stdout
    for name in ("original", "model_1"):
        score = read_json(project.root / "scores" / f"{name}.json")
        assert score["verdict"] == "reference_unfit" and score["references"] == 0 and score["reference_unfit"] in line
        numbers = {id_: each for id_, each in score["measures"].items() if "value" in each}
        assert not [id_ for id_, each in numbers.items() if "reference" in each or id_.startswith("distance")]
    (row,) = project.rows(method="model_1")
    assert row["tags"]["verdict"] == "reference_unfit" and "over_forgetting" not in row["tags"]
    assert not [key for key in row["metrics"] if "distance" in key]


def test_what_a_file_was_made_from_is_remembered_by_its_bytes_and_normalisation(project: Project, weights: Weights) -> None:
    """Another file of the same name, and another data.mean, are refused with the command that makes the model again."""
    given = {name: project.root / name / "model.pth" for name in ("a", "b", "copy")}
    for name, path in given.items():
        path.parent.mkdir()
        torch.save(weights if name != "b" else model.build("convnet", 10, 8).state_dict(), path)
    none = ["--method", "model_1", "--methods.model_1.epochs", "0", "--run.evaluate", "false"]
    for kind, stage in (("original", "pretrain"), ("retrained", "retrain")):
        made = project.root / "models" / f"{kind}.safetensors"
        made.unlink()
        project.ran(stage, f"--{stage}.checkpoint", "a/model.pth")
        before = made.read_bytes()
        assert project.ran(stage, f"--{stage}.checkpoint", "copy/model.pth") and made.read_bytes() == before
        known = checkpoint.metadata(made)
        assert known["sha256"] == hashlib.sha256(given["a"].read_bytes()).hexdigest()
        if kind == "original":
            refused = project.run("unlearn", *none, "--pretrain.checkpoint", "b/model.pth")
            assert refused.returncode == 2 and made.read_bytes() == before
            assert "another file than pretrain.checkpoint names now" in refused.stderr and "src/pretrain.py" in refused.stderr
            refused = project.run("unlearn", *none, "--pretrain.checkpoint", "a/model.pth", "--data.mean", "0,0,0")
            assert refused.returncode == 2 and made.read_bytes() == before
            assert "made with data.mean 0.5,0.5,0.5 and data.std 0.5,0.5,0.5, not with data.mean 0.0,0.0,0.0" in refused.stderr
        project.ran(stage, f"--{stage}.checkpoint", "b/model.pth")
        assert equal(checkpoint.load(made)[0], torch.load(given["b"]))


def test_a_fine_tuned_original_and_its_reference_start_from_the_same_weights(project: Project) -> None:
    """pretrain.init: without an epoch both are those weights; it is part of what they were made from."""
    start = project.root / "start.safetensors"
    checkpoint.save(model.build("convnet", 10, 7).state_dict(), start, {})
    none = ["--pretrain.init", start.name, "--pretrain.epochs", "0", "--pretrain.final_epochs", "0"]
    for kind, stage in (("original", "pretrain"), ("retrained", "retrain")):
        done = project.ran(stage, *none)
        tensors, known = checkpoint.load(project.root / "models" / f"{kind}.safetensors")
        assert equal(tensors, checkpoint.load(start)[0])
        assert known["init"] == digest_file(start) and f"training starts from {start.name}" in done.stderr
    before = project.files()
    refused = project.run("unlearn", "--method", "model_1", "--pretrain.epochs", "0", "--pretrain.final_epochs", "0")
    assert refused.returncode == 2 and "not from random weights (pretrain.init)" in refused.stderr
    missing = project.run("pretrain", "--pretrain.init", "IMAGENET1K_V1")
    assert missing.returncode == 2 and "torchvision has no weights for convnet" in missing.stderr
    assert project.files().keys() == before.keys()


SHARED = ROOT.parent / "shared"


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "checkpoints").is_dir() or not (SHARED / "cifar10-jpeg").is_dir(), reason="no ../shared/checkpoints")
def test_the_provided_checkpoints_on_the_forget_images(tmp_path: Path) -> None:
    """On CIFAR-10 (JPEG), the seed-42 draw: what they were trained on, and not."""
    from lethe.data import splits
    from lethe.data.images import Images
    from lethe.data.request import DeletionRequest
    from lethe.evaluation import metrics
    from lethe.models import small_conv as quick

    folder = SHARED / "cifar10-jpeg"
    classes = sorted(path.name for path in (folder / "train").iterdir())
    files = {
        part: [(label, file) for label, name in enumerate(classes) for file in sorted((folder / part / name).iterdir())]
        for part in ("train", "test")
    }
    ids = tuple(str(file.relative_to(folder)) for part in files.values() for _, file in part)
    labels = np.array([label for part in files.values() for label, _ in part])
    unread = Images(np.empty((len(ids), 0), np.uint8), labels, ids, tuple(classes), len(files["test"]))
    forget = splits.draw(unread, DeletionRequest(fraction=0.1), seed=42)["forget"]
    assert forget[:3].tolist() == [11492, 29443, 25305]
    images = torch.from_numpy(np.stack([np.asarray(Image.open(folder / ids[i])) for i in forget])).permute(0, 3, 1, 2)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)))
    for file, accuracy in (("weights_resnet18_cifar10.pth", 98.60), ("retrain_weights_resnet18_cifar10.pth", 84.72)):
        network = quick.quicken(model.build("resnet18", 10, 0)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        tensors, _ = foreign.read(str(SHARED / "checkpoints" / file), tmp_path, tmp_path)
        fitting.fit(network, tensors, file)
        with torch.no_grad():
            logits = torch.cat([network((part.float() / 255 - mean) / std) for part in images.split(500)])
        assert metrics.accuracy(logits, torch.from_numpy(labels[forget])) == pytest.approx(accuracy, abs=0.05)


def test_a_given_model_of_another_class_order(project: Project) -> None:
    """It is told that another order fits better; with that key its rows are those of the data's classes."""
    made = project.root / "models" / "original.safetensors"
    weights, classes = checkpoint.load(made)[0], [str(n) for n in range(10)]
    own = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    torch.save(weights | {name: weights[name][own] for name in ("fc.weight", "fc.bias")}, project.root / "own.pth")
    made.unlink()
    given, named = ["--pretrain.checkpoint", "own.pth"], ",".join(classes[n] for n in own)
    told = project.ran("pretrain", *given).stderr  # not refused: it knows half of its images, by the right order too
    assert "of its own training images right as it is read here, and" in told and "pretrain.classes" in told
    project.ran("pretrain", *given, "--pretrain.classes", named)
    found, known = checkpoint.load(made)
    assert equal(found, weights) and known["classes"] == named
    rows = [classes.index(name) for name in named.split(",")]  # the way back, as the guide has it
    assert torch.equal(found["fc.weight"][rows], torch.load(project.root / "own.pth")["fc.weight"])
    other = project.run("unlearn", "--method", "model_1", *given)
    assert other.returncode == 2 and f"it was taken with pretrain.classes {named}, not null" in other.stderr


def test_a_refused_checkpoint_leaves_nothing(project: Project) -> None:
    """Its classes are tried before the first file is written, so that a workspace that was not there is not begun."""
    project.ran("pretrain", "--run.workspace", "taught", "--pretrain.epochs", "30")
    weights = checkpoint.load(project.root / "taught" / "models" / "original.safetensors")[0]
    own = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
    torch.save(weights | {name: weights[name][own] for name in ("fc.weight", "fc.bias")}, project.root / "own.pth")
    given, taught = ["--pretrain.checkpoint", "own.pth", "--run.workspace"], project.files()
    order = "with pretrain.classes 3,1,4,0,5,9,2,6,8,7: set that"
    unknown, said = ["--pretrain.classes", "0,1,2,3,4,5,6,7,8,cat"], "(the data have no cat); it takes the 10 classes of the data"
    for stage, line, *words in (
        ("pretrain", order, *given, "new"),
        ("pretrain", said, *given, "taught", *unknown),  # one that was there stays as it was
        ("unlearn", order, *given, "new", "--method", "model_1"),
        ("unlearn", said, *given, "new", "--method", "model_1", *unknown),
        ("evaluate", order, *given, "new", "--method", "original"),
    ):
        refused = project.run(stage, *words)
        assert (refused.returncode, line in refused.stderr) == (2, True), refused.stderr
        assert project.files() == taught and not (project.root / "new").exists(), stage
    done = project.ran("unlearn", "--method", "model_1", *given, "new", "--pretrain.classes", ",".join(map(str, own)))
    assert done.stderr.count("provenance unknown") == 1
    assert equal(checkpoint.load(project.root / "new" / "models" / "original.safetensors")[0], weights)
