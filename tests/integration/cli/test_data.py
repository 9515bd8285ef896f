"""Reading images in processes: stopped, without a network, twice the same."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from lethe._util.errors import RunFailed, UserError
from lethe.data import decoding, sources
from lethe.data.images import Images
from support.project import NET, until

SRC = Path(sources.__file__).parents[2]
REAL = Path(__file__).parents[4] / "shared" / "cifar10-jpeg"


def picture(seed: int, size: tuple[int, int] = (32, 32)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """train/{cat,dog} with 3 images each, test/{cat,dog} with 2 each, all PNG of 32x32."""
    root = tmp_path / "own"
    for part, count in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            folder = root / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture(100 * label + 10 * count + i).save(folder / f"{i}.png")
    return root


def folder(root: Path, image_size: int = 32, limit: int | None = None) -> Images:
    return sources.read("image_folder", root=root, image_size=image_size, limit=limit, cache=root / "never")


def test_ctrl_c_while_reading_is_quiet_and_leaves_no_process(tmp_path: Path) -> None:
    for part, count in (("train", 4000), ("test", 1)):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            picture(0, (200, 200)).save(tmp_path / part / name / "0.jpg")
            for i in range(1, count):
                (tmp_path / part / name / f"{i}.jpg").hardlink_to(tmp_path / part / name / "0.jpg")
    code = (
        "import sys; from pathlib import Path; from lethe.data import decoding, sources\n"
        "decoding._workers = lambda files: 2\n"
        "print('reading', flush=True)\n"
        "try: sources.read('image_folder', root=Path(sys.argv[1]), image_size=32, limit=None, cache=Path('never'))\n"
        "except KeyboardInterrupt: print('stopped')"
    )
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, env=environment, start_new_session=True, stdout=-1, stderr=-2, text=True) as reading:
        assert reading.stdout
        assert reading.stdout.readline() == "reading\n"
        until(lambda: len(psutil.Process(reading.pid).children()) == 2)
        os.killpg(reading.pid, signal.SIGINT)
        assert reading.communicate(timeout=NET)[0] == "stopped\n"  # its end: no process holds the pipe any longer


# --- digits and CIFAR-10 --------------------------------------------------------------------------------------------


def digits(limit: int | None = None) -> Images:
    return sources.read("digits", root=None, image_size=32, limit=limit, cache=Path("never"))


def test_without_a_network_one_line_names_the_ways_that_need_none(tmp_path: Path) -> None:
    code = (
        "import sys, torchvision.datasets, time; from pathlib import Path; from lethe._util import errors; from lethe.data import sources\n"
        "started = time.monotonic()\n"
        "try: sources.read('cifar10', root=None, image_size=32, limit=None, cache=Path(sys.argv[1]))\n"
        "except errors.UserError as error: print(error)\n"
        "print(time.monotonic() - started)"
    )
    dead = "http://127.0.0.1:9"
    environment = {**os.environ, "PYTHONPATH": str(SRC), "https_proxy": dead, "http_proxy": dead, "no_proxy": ""}
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "cache"], env=environment, capture_output=True, text=True, timeout=NET)
    assert done.stderr == ""
    message, seconds = done.stdout.splitlines()
    assert message.startswith("data.source is cifar10 and it can't be downloaded (")
    assert "--data.source image_folder --data.root <folder>" in message
    assert "--data.source digits" in message
    assert float(seconds) < 5
    assert not list(tmp_path.iterdir())


def test_the_file_of_images_is_the_same_in_every_process(root: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from lethe.data import images, sources\n"
        "i = sources.read('image_folder', root=Path(sys.argv[1]), image_size=32, limit=None, cache=Path('never'))\n"
        "images.save_images(i, Path(sys.argv[2]), 'listing'); print(i.train_hash())"
    )
    sums = set()
    for seed in ("1", "2"):
        path = tmp_path / f"{seed}.safetensors"
        environment = {**os.environ, "PYTHONPATH": str(SRC), "PYTHONHASHSEED": seed}
        run = subprocess.run([sys.executable, "-c", code, root, path], env=environment, check=True, capture_output=True)
        sums.add((hashlib.sha256(path.read_bytes()).hexdigest(), run.stdout))
    assert len(sums) == 1


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() if p.is_file() else b"" for p in sorted(path.rglob("*"))}


def refuses(call: Callable[[], object], *words: object) -> str:
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert str(word) in message
    return message


@pytest.mark.parametrize("workers", [1, 3])
def test_of_many_unreadable_images_all_are_counted(
    root: Path, workers: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(decoding, "_workers", lambda files: workers)
    for i in range(1200):
        (root / f"train/cat/x{i:04d}.jpg").write_bytes(b"not an image")
    refuses(
        lambda: folder(root),
        root / "train/cat/x0000.jpg",
        "none of the formats AVIF, BMP",
        "nor can 1,199 more files: train/cat/x0001.jpg, ",
    )
    assert capfd.readouterr().err == ""


def test_processes_read_what_one_reads(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = folder(root, image_size=500)  # one image a chunk
    monkeypatch.setattr(decoding, "_workers", lambda files: 3)
    for name in ("lethe", "PIL", "numpy", "pickle"):  # a current folder may hold anybody's files: nothing is imported from it
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    together = folder(root, image_size=500)
    assert (together.pixels == alone.pixels).all()
    assert together.ids == alone.ids


@pytest.mark.parametrize("before", ["", "import os, pickle; os.write(1, pickle.dumps(bytes(1000))[:500])"])
def test_a_process_that_dies_fails_the_run_and_does_not_hang_it(before: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_workers", lambda files: 2)
    (package := root / "broken/lethe").mkdir(parents=True)
    (package / "__init__.py").write_text(f"{before}\nraise SystemExit(9)")
    monkeypatch.setattr(decoding, "__file__", str(package / "data" / "decoding.py"))  # what the processes import
    with pytest.raises(RunFailed, match=r"a process that reads images ended, near .*train/cat/0\.png"):
        folder(root)


MISFITS: dict[str, tuple[str, str]] = {  # what befalls the folder `own`; a part of the message
    "rm -r own": ("data.root is", "no such folder"),
    "rm -r own; echo x > own": ("data.root is", "not a folder"),
    "rm -r own/train": ("data.root is", "no folder train"),
    "rm -r own/test": ("data.root is", "no folder test"),
    "rm -r own/test/dog": ("train/dog has no test/dog", "the same classes in both"),
    "mkdir own/test/emu": ("test/emu has no train/emu", "the same classes in both"),
    "rm -r own/*/dog": ("classes in train: cat", "two or more"),
    "rm -r own/*/*": ("classes in train: none", "two or more"),
    "rm own/train/dog/*": ("train/dog is empty", "one image or more in each class"),
    "rm own/test/cat/* own/test/dog/0.png": ("1 image under test", "two or more"),
    r"mv own/train/cat/0.png $'own/train/cat/a\nb.png'": ("own/train/cat/a", "line break"),
    r"mv own/train/cat/0.png $'own/train/cat/\xff.png'": ("own/train/cat/", "not UTF-8"),
}


@pytest.mark.parametrize("damage", MISFITS)
def test_a_folder_that_does_not_fit_is_refused(root: Path, tmp_path: Path, damage: str) -> None:
    subprocess.run(["bash", "-c", damage], cwd=tmp_path, check=True)
    before = tree(tmp_path)
    refuses(lambda: folder(root), *MISFITS[damage])
    refuses(lambda: sources.listing("image_folder", root=root, image_size=32, limit=None), *MISFITS[damage])
    assert tree(tmp_path) == before


@pytest.mark.skipif(not REAL.is_dir(), reason="no ../shared/cifar10-jpeg beside this checkout")
def test_the_real_folder() -> None:
    images = folder(REAL, limit=20)
    assert images.classes == tuple(sorted(p.name for p in (REAL / "train").iterdir()))
    assert (images.train, images.held_out) == (200, 10_000)
    assert images.ids[0] == "train/airplane/0000.jpg"
    assert images.ids[-1] == "test/truck/0999.jpg"
    assert images.ids[199] == "train/truck/0019.jpg"
    for i in (0, 100, 200, 10_199):
        assert (images.pixels[i].transpose(1, 2, 0) == np.asarray(Image.open(REAL / images.ids[i]))).all()
