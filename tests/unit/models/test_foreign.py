"""Checkpoints as they are in the world: what training programs, wrappers and downloads leave in a file."""

import argparse
import enum
import gzip
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from lethe._util.errors import UserError
from lethe.models import architectures, fitting, foreign

Weights = dict[str, Tensor]


def network() -> nn.Module:
    return architectures.build("convnet", 3, 7)


@pytest.fixture
def weights() -> Weights:
    return network().state_dict()


def taken(spec: str, folder: Path) -> tuple[Weights, fitting.Normalisation | None]:
    """The weights of a network that was given a file, and the normalisation that the file has."""
    tensors, _ = foreign.read(spec, folder, folder / "downloads")
    other = architectures.build("convnet", 3, 0)
    normalisation = fitting.fit(other, tensors, spec)
    return other.state_dict(), normalisation


def refusal(spec: str, folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        taken(spec, folder)
    assert "\n" not in str(caught.value)
    assert spec.partition("#")[0] in str(caught.value)
    return str(caught.value)


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def under(prefix: str, weights: Weights) -> Weights:
    return {f"{prefix}{name}": value for name, value in weights.items()}


# --- wrappers -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "model.", "net.", "0.", "_orig_mod.module.", "module._orig_mod.", "learner.backbone.network."]
)
def test_a_common_prefix_is_taken_off(prefix: str, weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": under(prefix, weights)}, tmp_path / "a.pth")
    assert equal(taken("a.pth", tmp_path)[0], weights)
    rest = prefix.replace("_orig_mod.", "")
    assert (f"{rest!r} is taken off" in capsys.readouterr().err) == bool(rest)


def wrapped(model: nn.Module) -> dict[str, Any]:
    averaged = torch.optim.swa_utils.AveragedModel(model)
    averaged.update_parameters(model)
    return {"compiled": torch.compile(model), "averaged": averaged, "both": torch.compile(averaged)}


@pytest.mark.parametrize("kind", ["compiled", "averaged", "both"])
def test_what_torch_wraps_a_model_in(kind: str, weights: Weights, tmp_path: Path) -> None:
    torch.save(wrapped(network())[kind].state_dict(), tmp_path / "a.pth")
    assert equal(taken("a.pth", tmp_path)[0], weights)


def test_a_compiled_layer(weights: Weights, tmp_path: Path) -> None:
    model = network()
    model.add_module("layer2", torch.compile(model.get_submodule("layer2")))  # type: ignore[arg-type]
    assert "layer2._orig_mod.0.weight" in model.state_dict()
    torch.save(model.state_dict(), tmp_path / "a.pth")
    assert equal(taken("a.pth", tmp_path)[0], weights)


def test_what_others_leave_in_a_state_dict(weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """thop's counts, Lightning's loss with class weights, a number of epochs next to the tensors."""
    counts = {"total_ops": torch.zeros(1), "model.layer1.0.total_params": torch.zeros(1)}
    torch.save({**under("model.", weights), **counts, "criterion.weight": torch.ones(3), "epoch": 3}, tmp_path / "a.pth")
    assert equal(taken("a.pth", tmp_path)[0], weights)
    assert "left out, since the network has no such part: criterion.weight" in capsys.readouterr().err
    torch.save(weights | {"aux1.fc.weight": torch.ones(3)}, tmp_path / "a.pth")
    assert equal(taken("a.pth", tmp_path)[0], weights)
    torch.save({**under("model.", weights), "projector.weight": torch.ones(3)}, tmp_path / "a.pth")
    assert "has also projector.weight" in refusal("a.pth", tmp_path)


def test_counters_may_be_absent(weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({name: value for name, value in weights.items() if "num_batches" not in name}, tmp_path / "a.pth")
    assert equal(taken("a.pth", tmp_path)[0], weights)
    assert "num_batches_tracked" in capsys.readouterr().err


def test_masks_of_pruning_are_applied(weights: Weights, tmp_path: Path) -> None:
    model = network()
    prune.l1_unstructured(model.get_submodule("layer2.0"), "weight", 0.5)
    torch.save(model.state_dict(), tmp_path / "a.pth")
    found = taken("a.pth", tmp_path)[0]
    assert torch.equal(found["layer2.0.weight"], model.get_parameter("layer2.0.weight_orig") * model.get_buffer("layer2.0.weight_mask"))
    assert (found["layer2.0.weight"] == 0).float().mean() == 0.5


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_point_types(kind: torch.dtype, weights: Weights, tmp_path: Path) -> None:
    torch.save({name: value.to(kind) if value.is_floating_point() else value for name, value in weights.items()}, tmp_path / "a.pth")
    found = taken("a.pth", tmp_path)[0]
    assert all(torch.equal(found[name], weights[name].to(kind).to(weights[name].dtype)) for name in weights)


# --- several models in a file ---------------------------------------------------------------------------------------------


def test_an_averaged_copy_is_taken_on_request(weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {name: value + 1 for name, value in weights.items()}
    torch.save({"state_dict": weights, "state_dict_ema": under("module.", other), "epoch": 3}, tmp_path / "a.pth")
    assert equal(taken("a.pth", tmp_path)[0], weights)
    assert "it has also 'state_dict_ema', which a.pth#key=state_dict_ema takes" in capsys.readouterr().err
    assert equal(taken("a.pth#key=state_dict_ema", tmp_path)[0], other)
    assert "no state dict under the key 'ema'; there is one under each of" in refusal("a.pth#key=ema", tmp_path)


def test_two_networks_that_fit_are_a_question(weights: Weights, tmp_path: Path) -> None:
    other = {name: value + 1 for name, value in weights.items()}
    torch.save({"state_dict": under("student.", weights) | under("teacher.", other)}, tmp_path / "a.pth")
    assert "2 networks that fit; it takes a.pth#key=student or #key=teacher" in refusal("a.pth", tmp_path)
    assert equal(taken("a.pth#key=teacher", tmp_path)[0], other)


def test_the_only_state_dict_is_taken_under_any_key(weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moments = {"state": {0: {"momentum_buffer": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    torch.save({"my_weights": weights, "optimizer": moments, "epoch": 3}, tmp_path / "a.pth")
    assert equal(taken("a.pth", tmp_path)[0], weights)
    assert "the weights under 'my_weights' are taken" in capsys.readouterr().err


def test_a_sum_and_a_key_after_a_file(weights: Weights, tmp_path: Path) -> None:
    torch.save({"state_dict_ema": weights, "model": weights}, tmp_path / "a#1.pth")
    sum_ = foreign.read("a#1.pth", tmp_path, tmp_path)[1]
    assert equal(taken(f"a#1.pth#sha256={sum_}&key=state_dict_ema", tmp_path)[0], weights)
    assert "its SHA-256 is" in refusal(f"a#1.pth#sha256={'0' * 64}", tmp_path)
    assert foreign.Spec.parse(f"https://a/b.pth#key=c#sha256={'AB' * 32}") == foreign.Spec("https://a/b.pth", "ab" * 32, "c")


# --- what is next to the weights -------------------------------------------------------------------------------------------


def test_plain_values_next_to_the_weights_are_not_read(weights: Weights, tmp_path: Path) -> None:
    beside = {"best_acc": np.float64(93.1), "args": argparse.Namespace(lr=0.1), "curve": np.zeros(3), "folder": Path("runs")}
    torch.save({"state_dict": weights, **beside}, tmp_path / "a.pth")
    assert equal(taken("a.pth", tmp_path)[0], weights)


class Config:
    """Of somebody's program."""

    def __init__(self) -> None:
        raise AssertionError("this is run")


class Settings(dict[str, Any]):
    """A dict of somebody's program, as Lightning's AttributeDict and EasyDict are."""


class Mode(enum.Enum):
    ONE = 1


def test_objects_of_programs_are_not_read(weights: Weights, tmp_path: Path) -> None:
    """Lightning's hyperparameters, EasyDict, mmengine's logs: their classes are neither imported nor run."""
    settings, counts = Settings(lr=0.1), defaultdict(list, a=[1])
    vars(settings)["frozen"] = True
    beside = {"config": Config.__new__(Config), "hyper_parameters": settings, "counts": counts, "mode": Mode.ONE, "at": date(2026, 1, 1)}
    torch.save({"state_dict": {f"model.{name}": value for name, value in weights.items()}, **beside}, tmp_path / "a.ckpt")
    assert equal(taken("a.ckpt", tmp_path)[0], weights)
    torch.save(Settings(epoch=3, net=Settings(weights)), tmp_path / "a.ckpt")
    assert equal(taken("a.ckpt", tmp_path)[0], weights)


class Eval:
    def __reduce__(self) -> Any:
        return eval, ("1",)


def test_what_would_run_code_is_named(weights: Weights, tmp_path: Path) -> None:
    torch.save({"state_dict": weights, "config": Eval()}, tmp_path / "a.pth")
    found = refusal("a.pth", tmp_path)
    assert "builtins.eval" in found
    assert 'torch.save(model.state_dict(), "weights.pth")' in found
    torch.save({"model": network(), "epoch": 3}, tmp_path / "a.pth")
    assert "(a whole model?): lethe.models.architectures.ConvNet" in refusal("a.pth", tmp_path)
    torch.save({"state_dict": weights, "acc": np.float64(1)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert 'torch.save(model.state_dict(), "weights.pth")' in refusal("a.pth", tmp_path)


# --- normalisation -----------------------------------------------------------------------------------------------------------

MEAN, STD = (0.49, 0.48, 0.45), (0.2, 0.21, 0.22)


class Normalise(nn.Module):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1) * scale)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1) * scale)


def added(model: nn.Module, **modules: nn.Module) -> nn.Module:
    for name, module in modules.items():
        model.add_module(name, module)
    return model


@pytest.mark.parametrize("scale", [1.0, 255.0])
@pytest.mark.parametrize(
    "together",
    [
        lambda first, model: nn.Sequential(first, model),
        lambda first, model: nn.Sequential(OrderedDict(normalize=first, model=model)),
        lambda first, model: added(model, normalize=first),
    ],
)
def test_a_normalisation_of_its_own(
    together: Callable[[nn.Module, nn.Module], nn.Module], scale: float, weights: Weights, tmp_path: Path
) -> None:
    torch.save(together(Normalise(scale), network()).state_dict(), tmp_path / "a.pth")
    found, normalisation = taken("a.pth", tmp_path)
    assert equal(found, weights)
    assert normalisation
    assert (normalisation.mean, normalisation.std) == (pytest.approx(MEAN), pytest.approx(STD))
    normalisation.check(MEAN, STD, "a.pth")
    with pytest.raises(UserError, match=r"mean and .*std\); .* give --data\.mean 0\.49,0\.48,0\.45 --data\.std 0\.2,0\.21,0\.22$"):
        normalisation.check((0.5, 0.5, 0.5), STD, "a.pth")


def test_a_normalisation_without_tensors_is_asked_for(weights: Weights, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(nn.Sequential(nn.Identity(), network()).state_dict(), tmp_path / "a.pth")
    assert equal(taken("a.pth", tmp_path)[0], weights)
    assert "part 1 of a Sequential" in capsys.readouterr().err


def test_what_holds_itself_or_no_values(weights: Weights, tmp_path: Path) -> None:
    around: dict[str, Any] = {}
    around["state_dict"] = around
    torch.save(around, tmp_path / "a.pth")
    for spec in ("a.pth", "a.pth#key=model"):
        with pytest.raises(UserError, match=r"a\.pth holds no state dict"):
            taken(spec, tmp_path)
    torch.save({name: value.to("meta") for name, value in weights.items()}, tmp_path / "a.pth")
    with pytest.raises(UserError, match=r"a\.pth holds only the shape of \S+, of a model on the device meta"):
        taken("a.pth", tmp_path)


def test_an_archive_that_is_larger_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(4_000_000))
        archive.writestr("a/version", "3")
    with pytest.raises(UserError, match=r"a\.pth is a zip archive that unpacks to 4,000,001 bytes"):
        taken("a.pth", tmp_path)


# --- what a file is, if not weights -----------------------------------------------------------------------------------------


def test_safetensors_under_any_name(weights: Weights, tmp_path: Path) -> None:
    save_file(weights, tmp_path / "a.bin")
    assert equal(taken("a.bin", tmp_path)[0], weights)


def test_files_of_other_kinds_are_named(tmp_path: Path) -> None:
    for content, kind in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 44800000\n", "git LFS"),
        (b"\n<!DOCTYPE html><html><body>Quota exceeded</body></html>", "a web page"),
        (b'{"metadata": {}, "weight_map": {}}', "several files"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
        (gzip.compress(b"weights"), "gzip"),
        (b"\x93NUMPY\x01\x00" + bytes(100), "NumPy"),
    ):
        for name in ("a.pth", "a.safetensors"):
            (tmp_path / name).write_bytes(content)
            assert kind in refusal(name, tmp_path) or name == "a.safetensors"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("run/last.pth", b"")
    assert "a zip archive with run/last.pth; unpack it" in refusal("a.zip", tmp_path)
    np.savez(tmp_path / "a.npz", weight=np.zeros(3))
    assert "an archive of NumPy arrays" in refusal("a.npz", tmp_path)
    (tmp_path / "a.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch")
    assert "an ONNX file" in refusal("a.onnx", tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.safetensors").write_bytes(b"")
    assert "it takes one of its files: model.safetensors" in refusal("folder", tmp_path)
    (tmp_path / "folder" / "__0_0.distcp").write_bytes(b"")
    assert "dcp_to_torch" in refusal("folder", tmp_path)


def test_programs_are_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:  # the layout of torch.jit.save
        for name in ("a/data.pkl", "a/code/__torch__.py", "a/constants.pkl"):
            archive.writestr(name, b"")
    assert "a.pt is TorchScript" in refusal("a.pt", tmp_path)
    with zipfile.ZipFile(tmp_path / "b.pt2", "w") as archive:
        archive.writestr("b/archive_format", b"pt2")
    assert "a program of torch.export" in refusal("b.pt2", tmp_path)


def test_weights_that_cannot_be_trained(weights: Weights, tmp_path: Path) -> None:
    def saved(value: Any, name: str = "fc.weight") -> str:
        torch.save(weights | {name: value}, tmp_path / "a.pth")
        return refusal("a.pth", tmp_path)

    fc = weights["fc.weight"]
    assert "fc.weight is int8 in the file: quantised weights" in saved(fc.to(torch.int8))
    assert "quantised" in saved(((1,), None), "fc._packed_params._packed_params")
    assert "sparse" in saved(fc.to_sparse())
    for value in (float("nan"), float("inf")):
        assert "not finite (NaN or infinite) in fc.weight: the training that made it diverged" in saved(fc * value)


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_quantised_tensors(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights | {"fc.weight": torch.quantize_per_tensor(weights["fc.weight"], 0.1, 0, torch.qint8)}, tmp_path / "a.pth")
    assert "quantised weights (fc.weight" in refusal("a.pth", tmp_path)
