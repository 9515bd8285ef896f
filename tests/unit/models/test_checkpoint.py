"""Other people's weights: read without running anything, and said in words where they do not fit."""

import functools
import hashlib
import http.server
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lethe._util.errors import RunFailed, UserError
from lethe._util.redact import clean, without_secrets
from lethe.models import architectures as model
from lethe.models import checkpoint, download, fitting, foreign

torch.set_num_threads(1)

Weights = dict[str, Tensor]


@pytest.fixture
def weights() -> Weights:
    return model.build("convnet", 10, 7).state_dict()


def taken(spec: object, folder: Path, architecture: str = "convnet", classes: int = 10) -> Weights:
    """What the network holds behind a checkpoint of somebody's."""
    tensors, sha = foreign.read(str(spec), folder, folder / "downloads")
    network = model.build(architecture, classes, 0)
    fitting.fit(network, tensors, str(spec))
    assert len(sha) == 64
    return network.state_dict()


def equal(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def refused(spec: object, folder: Path, *says: str, classes: int = 10) -> None:
    with pytest.raises(UserError) as caught:
        taken(spec, folder, classes=classes)
    said = str(caught.value)
    assert "\n" not in said
    for word in says:
        assert word in said


# --- what is taken --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda weights: weights,
        lambda weights: {"state_dict": weights, "epoch": 3},
        lambda weights: {"model": {"state_dict": weights}},
        lambda weights: {"net": weights, "acc": 93.1},
        lambda weights: {f"module.{name}": value for name, value in weights.items()},
        lambda weights: {"model_state_dict": {f"module.{name}": value for name, value in weights.items()}},
    ],
)
def test_a_pth_file(wrapped: Any, weights: Weights, tmp_path: Path) -> None:
    torch.save(wrapped(weights), tmp_path / "a.pth")
    assert equal(taken("a.pth", tmp_path), weights)


@pytest.mark.parametrize("architecture", ["convnet", "resnet18"])
def test_a_safetensors_file(architecture: str, tmp_path: Path) -> None:
    """Its tensors lie in another order than the model's."""
    weights = model.build(architecture, 10, 7).state_dict()
    save_file(weights, tmp_path / "a.safetensors")
    assert equal(taken("a.safetensors", tmp_path, architecture), weights)
    save_file({f"module.{name}": value for name, value in weights.items()}, tmp_path / "b.safetensors")
    assert equal(taken("b.safetensors", tmp_path, architecture), weights)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server and its folder."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", folder
        server.shutdown()


@pytest.mark.parametrize("ending", ["pth", "safetensors", "safetensors?download=true"])
def test_an_address(ending: str, site: tuple[str, Path], weights: Weights, tmp_path: Path) -> None:
    address, folder = site
    file = folder / f"a.{ending.partition('?')[0]}"
    torch.save(weights, file) if file.suffix == ".pth" else save_file(weights, file)
    sum_ = hashlib.sha256(file.read_bytes()).hexdigest()
    url = f"{address}/a.{ending}"
    plain = url.partition("?")[0]  # the query may be a signature, and is in no message
    refused(f"{url}#sha256={'0' * 64}", tmp_path, f"{plain}: its SHA-256 is {sum_}", "0" * 64)
    assert equal(taken(f"{url}#sha256={sum_}", tmp_path), weights)
    assert equal(taken(f"{url}#sha256={sum_.upper()}", tmp_path), weights)
    assert foreign.read(url, tmp_path, tmp_path / "downloads")[1] == sum_
    file.unlink()
    assert equal(taken(url, tmp_path), weights), "it is kept"
    refused(f"{url}#sha256={'0' * 64}", tmp_path, sum_)
    refused(url, tmp_path, plain, "404")


def test_the_secrets_of_an_address_are_sent_and_kept_nowhere(site: tuple[str, Path], weights: Weights, tmp_path: Path) -> None:
    address, folder = site
    torch.save(weights, folder / "a.pth")
    signed = f"{address}/a.pth?X-Signature=geheim-1"
    assert equal(taken(signed, tmp_path), weights)
    assert equal(taken(f"{address}/a.pth", tmp_path), weights)
    (first,) = (tmp_path / "downloads").iterdir()
    assert "geheim" not in first.name
    torch.save({name: value + 1 for name, value in weights.items()}, folder / "a.pth")
    taken(f"{address}/a.pth?version=2", tmp_path)
    assert len(list((tmp_path / "downloads").iterdir())) == 2, "another query may be another file"
    shown = without_secrets(f"http://me:geheim@{signed.removeprefix('http://')}#sha256=00")
    assert shown == f"{address}/a.pth#sha256=00"
    said = clean("postgresql://host/db?sslmode=require&sslpassword=geheim&x=1 and https://h/?access_token=geheim#/runs")
    assert said == "postgresql://host/db?sslmode=require&sslpassword=***&x=1 and https://h/?access_token=***#/runs"


@pytest.mark.parametrize(
    ("fragment", "says"),
    [
        ("sha256=abc", "#sha256=abc: a SHA-256 has 64 hexadecimal digits"),
        ("md5=d41d8cd98f00b204e9800998ecf8427e", "after # it takes sha256=<sum> and key=<name>"),
    ],
)
def test_a_sum_that_would_not_be_checked_is_refused(fragment: str, says: str, tmp_path: Path) -> None:
    refused(f"https://example.invalid/a.pth#{fragment}", tmp_path, says)
    assert not (tmp_path / "downloads").exists()


def test_a_download_that_ends_early_or_never_ends_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Early(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 100)

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Early) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/a.pth"
        refused(address, tmp_path, f"{address} can't be downloaded: ")
        monkeypatch.setattr(download, "LARGEST", 50.0)
        refused(address, tmp_path, "it has more than")
        server.shutdown()
    assert not list((tmp_path / "downloads").iterdir())


def test_a_file_address(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "a.pth")
    assert equal(taken(f"file://{tmp_path}/a.pth", tmp_path), weights)


# --- what is refused ------------------------------------------------------------------------------------------------


class Code:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_code_is_not_run(weights: Weights, tmp_path: Path) -> None:
    torch.save({"state_dict": weights, "epoch": Code(tmp_path / "ran")}, tmp_path / "a.pth")
    refused("a.pth", tmp_path, "a.pth", "weights")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert (tmp_path / "ran").exists(), "the file of this test holds no code"


def test_what_is_no_state_dict(weights: Weights, tmp_path: Path) -> None:
    refused("a.pth", tmp_path, "a.pth is not a file")
    refused(".", tmp_path, "is not a file")
    for number, tree in enumerate(([1, 2], {}, {"epoch": 3}, {"state_dict": {"a": 1}}, torch.zeros(3))):
        torch.save(tree, tmp_path / f"{number}.pth")
        refused(f"{number}.pth", tmp_path, f"{number}.pth", "no state dict")
    (tmp_path / "text.pth").write_text("hello")
    refused("text.pth", tmp_path, "text.pth is cut short, or was not written by torch.save")
    (tmp_path / "empty.pth").write_bytes(b"")
    refused("empty.pth", tmp_path, "empty.pth is cut short")
    torch.save({"one": {"a": torch.zeros(2)}, "other": {"a": torch.zeros(2)}}, tmp_path / "named.pth")
    refused("named.pth", tmp_path, "no state dict", "under each of the keys 'one', 'other': named.pth#key=one takes the first")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    refused("whole.pth", tmp_path, "whole.pth holds more than weights (a whole model?)", "model.state_dict()")


def test_changed_bytes_are_noticed(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "a.pth")
    content = (tmp_path / "a.pth").read_bytes()
    name, largest = max(weights.items(), key=lambda item: item[1].numel())
    at = content.index(largest.numpy().tobytes()) + 40
    (tmp_path / "a.pth").write_bytes(content[:at] + bytes(byte ^ 1 for byte in content[at : at + 4]) + content[at + 4 :])
    assert not torch.equal(torch.load(tmp_path / "a.pth", weights_only=True)[name], largest), "torch.load notices it"
    refused("a.pth", tmp_path, "a.pth is damaged: a/data/", "in it has another checksum")


def test_a_file_without_checksums_is_read(weights: Weights, tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights, tmp_path / "a.pth")
    finally:
        torch.serialization.set_crc32_options(True)
    assert equal(taken("a.pth", tmp_path), weights)


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_what_does_not_fit_is_named(form: str, weights: Weights, tmp_path: Path) -> None:
    def saved(tensors: Weights) -> str:
        torch.save(tensors, tmp_path / "a.pth") if form == "pth" else save_file(tensors, tmp_path / "a.safetensors")
        return f"a.{form}"

    left = {name: value for name, value in weights.items() if name != "layer2.0.weight"}
    refused(saved(left), tmp_path, f"a.{form}", "lacks layer2.0.weight")
    refused(saved(weights | {"extra.weight": torch.zeros(2)}), tmp_path, f"a.{form}", "has also extra.weight")
    refused(saved({"other": torch.zeros(1)}), tmp_path, "lacks", "and 19 more", "has also other")
    refused(
        saved(weights | {"layer4.0.weight": torch.zeros(64, 64, 3, 3)}), tmp_path, "layer4.0.weight is 64x64x3x3 in the file", "32x32x3x3"
    )
    refused(saved(weights), tmp_path, f"a.{form} was made for 10 classes, the data has 3", classes=3)
    hundred = {"fc.weight": torch.zeros(100, 32), "fc.bias": torch.zeros(100)}
    refused(saved(weights | hundred), tmp_path, f"a.{form} was made for 100 classes, the data has 10")


def test_a_truncated_file_is_named(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "a.pth")
    save_file(weights, tmp_path / "a.safetensors")
    for file in (tmp_path / "a.pth", tmp_path / "a.safetensors"):
        whole = file.read_bytes()
        for length in (len(whole) - 1, len(whole) // 2, 100, 4):
            file.write_bytes(whole[:length])
            refused(file.name, tmp_path, file.name)
    with pytest.raises(UserError, match=r"a\.safetensors"):
        checkpoint.metadata(tmp_path / "a.safetensors")


# --- our own files --------------------------------------------------------------------------------------------------


def test_equal_content_is_equal_bytes(weights: Weights, tmp_path: Path) -> None:
    """Whatever the order of names; and the writer's own order of metadata differs from file to file."""
    known = {key: key * 3 for key in "abcdefgh"}
    path = tmp_path / "a.safetensors"
    checkpoint.save(weights, path, known)
    whole = path.read_bytes()
    for _ in range(5):
        weights, known = dict(reversed(weights.items())), dict(reversed(known.items()))
        checkpoint.save(weights, path, known)
        assert path.read_bytes() == whole
    tensors, said = checkpoint.load(path)
    assert equal(dict(sorted(tensors.items())), dict(sorted(weights.items())))
    assert said == known


def test_the_hash_is_of_names_types_shapes_and_values(weights: Weights) -> None:
    hashes = {checkpoint.weights_hash(weights)}
    hashes.add(checkpoint.weights_hash(dict(reversed(weights.items()))))
    assert len(hashes) == 1
    for other in (
        weights | {"fc.bias": weights["fc.bias"] + 1e-7},
        weights | {"fc.bias": weights["fc.bias"].double()},
        weights | {"fc.bias": weights["fc.bias"].view(2, 5)},
        {name.replace("fc", "head"): value for name, value in weights.items()},
    ):
        hashes.add(checkpoint.weights_hash(other))
    assert len(hashes) == 5


def test_a_disk_that_refuses_names_the_file_and_keeps_the_old_one(weights: Weights, tmp_path: Path) -> None:
    path = tmp_path / "models" / "a.safetensors"
    checkpoint.save(weights, path, {"kind": "old"})
    old = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(RunFailed, match=f"{path} could not be written: "):
            checkpoint.save(weights, path, {"kind": "new"})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == old
    assert list(path.parent.iterdir()) == [path]
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailed, match=r"file/a\.safetensors could not be written: "):
        checkpoint.save(weights, tmp_path / "file" / "a.safetensors", {})
