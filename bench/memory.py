"""Measure the memory of every stage on photos that do not fit in it: generated JPEG files, decoded to --size pixels.

    python bench/memory.py [--photos 5000,20000] [--size 224] [--architecture memory:patches] [--write FILE]
    python bench/memory.py --small 70000
    python bench/memory.py --table 200000 1000

Prepare, unlearn (which trains the original and the retrained model, an epoch each), evaluate and card, each as a process of its own, whose
peak is what the system reports (ru_maxrss, with what it holds of mapped files and of libraries). What it has written to or read from files
without mapping them is the system's cache, which the system drops when memory is short; it is not counted. The default network is small, so
that what is measured is the images' memory and not the activations'. Needs no data and no network connection.

With --small the images are as many of 28 pixels as idx files, the network is the convnet, and `model_2` unlearns with frozen layers cached.
With --table a logits table of so many images and classes is written, and a process of its own reads it twice and computes what measures
take of each image; its peak is given beyond that of its imports.
"""

import argparse
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

from lethe.evaluation import logits_table
from lethe.evaluation.logits_table import LogitsTable

HOME = Path(__file__).parents[1]
CLASSES = 10
RUN = {"data.source": "image_folder", "method": "model_1", "methods.model_1.epochs": "1", "methods.model_1.batch_size": "16"}
RUN |= {"pretrain.batch_size": "16"}
SMALL = {"data.source": "idx", "model.architecture": "convnet", "method": "model_2", "methods.model_2.epochs": "1"}
SMALL |= {"methods.model_2.batchnorm": "eval_frozen", "run.threads": "1"}
KEYS = {
    "pretrain.epochs": "1",
    "pretrain.final_epochs": "0",
    "pretrain.min_steps": "1",
    "run.log_model": "none",
    "run.device": "cpu",
}
STAGES = {"prepare": ["prepare.py"], "unlearn": ["unlearn.py"], "evaluate": ["evaluate.py"], "card": ["report.py", "card"]}


def patches(num_classes: int) -> nn.Module:
    """A network of one layer that looks at patches of 16x16 pixels, and a head."""
    layer = nn.Sequential(nn.Conv2d(3, 16, 16, stride=16, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = nn.Sequential()
    network.add_module("layer4", layer)
    network.add_module("fc", nn.Linear(16, num_classes))
    return network


def generate(folder: Path, photos: int, size: int) -> None:
    """Write smooth random JPEG files, a fifth of them held out."""
    draw = np.random.default_rng(0)
    for number in range(photos):
        label = number // 5 % CLASSES
        path = folder / ("train" if number % 5 else "test") / str(label) / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = draw.integers(0, 256, (6, 6, 3), np.uint8)
        coarse[0, :, label % 3] = 25 * label
        Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC).save(path, quality=88)


def generate_idx(folder: Path, images: int, size: int = 28) -> None:
    """Write the four idx files of random images, whose first rows are as bright as their class, a seventh of them held out."""
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for part, number in (("train", images - images // 7), ("t10k", images // 7)):
        labels = (np.arange(number) % CLASSES).astype(np.uint8)
        pixels = draw.integers(0, 256, (number, size, size), np.uint8)
        pixels[:, :4] = 25 * labels[:, None, None]
        (folder / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, number, size, size) + pixels.tobytes())
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, number) + labels.tobytes())


READER = """
import sys, numpy as np
from lethe.evaluation import logits_table, row_blocks
from lethe.evaluation.context import EvaluationContext
from lethe.evaluation.measures import kl_to_reference
from lethe.evaluation.score import accuracy_and_loss
from lethe.models import checkpoint
import scipy.special, scipy.stats, torch
from pathlib import Path
def peak():
    return next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))
path, before = Path(sys.argv[1]), peak()
one, other = logits_table.read(path), logits_table.read(path)
one.log_p, one.phi, one.correct, one.hash, accuracy_and_loss(one)
logits_table.write(one, path.with_name("again"))
columns = peak()
kl_to_reference(EvaluationContext(one, [other], resample=False)), row_blocks.equal(one.logits, other.logits)
print(before, columns - before, peak() - before)
"""


def table(folder: Path, images: int, classes: int) -> dict[str, float]:
    """Peak memory in MiB of reading a logits table, beyond imports. Linux only."""
    rows = folder / "rows"
    with rows.open("wb") as file:
        for block in np.array_split(np.arange(images), max(1, images // 10000)):
            file.write(np.random.default_rng(int(block[0])).normal(0, 3, (len(block), classes)).astype(np.float32).tobytes())
    logits = np.memmap(rows, np.float32, "r", shape=(images, classes))
    ids, split = tuple(f"train/{i:08}" for i in range(images)), (np.arange(images) % 4).astype(np.uint8)
    logits_table.write(LogitsTable("drawn", ids, np.arange(images) % classes, split, logits), folder / "table.safetensors")
    said = subprocess.run([sys.executable, "-c", READER, str(folder / "table.safetensors")], capture_output=True, text=True, check=True)
    before, columns, compared = map(float, said.stdout.split())
    size = logits.nbytes / 2**20
    print(f"{images:,} x {classes:,} logits, {size:,.0f} MiB: imports {before:.0f} MiB, values of images {columns:.0f} MiB more,", end=" ")
    print(f"divergence from a reference {compared:.0f} MiB more", flush=True)
    return {"images": images, "classes": classes, "logits_mib": size, "imports": before, "columns": columns, "compared": compared}


def stages(workspace: Path, own: dict[str, str]) -> list[dict[str, Any]]:
    """Run the four stages; of each the peak in MiB, seconds and processor seconds."""
    keys = KEYS | own | {"run.workspace": str(workspace)}
    words = [word for key, value in keys.items() for word in (f"--{key}", value)]
    paths = os.pathsep.join(filter(None, [str(HOME / "bench"), os.environ.get("PYTHONPATH")]))
    found = []
    for stage, (script, *verb) in STAGES.items():
        began = time.perf_counter()
        command = [sys.executable, str(HOME / "src" / script), *verb, *words]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": paths})
        assert process.stderr
        said = process.stderr.read().decode()
        _, status, used = os.wait4(process.pid, 0)
        if status:
            raise RuntimeError(f"{stage} failed: {said}")
        peak = used.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
        one = {"stage": stage, "peak_mib": peak, "seconds": time.perf_counter() - began, "processor": used.ru_utime + used.ru_stime}
        found.append(one)
        print(f"  {stage:<9} {peak:6.0f} MiB {one['seconds']:7.1f} s, {one['processor']:7.1f} of the processor", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", default="5000,20000", help="numbers of photos, one after the other")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--architecture", default="memory:patches")
    parser.add_argument("--small", type=int, help="in place of photos, so many images of 28 pixels")
    parser.add_argument("--table", type=int, nargs=2, metavar=("IMAGES", "CLASSES"), help="in place of photos, a logits table")
    parser.add_argument("--write", type=Path, help="all numbers, as JSON")
    asked = parser.parse_args()
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tempfile.mkdtemp()}/mlflow.db"  # not your runs
    found: list[dict[str, Any]] = []
    if asked.table:
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            found.append(table(Path(folder), *asked.table))
    if asked.small:
        print(f"{asked.small:,} images of 28 pixels", flush=True)
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            generate_idx(Path(folder, "images"), asked.small)
            found.append({"images": asked.small, "stages": stages(Path(folder, "workspace"), SMALL | {"data.root": f"{folder}/images"})})
    for photos in map(int, asked.photos.split(",") if not (asked.table or asked.small) else ()):
        decoded = photos * 3 * asked.size**2 / 2**20
        print(f"{photos:,} photos of {asked.size} pixels, {decoded:,.0f} MiB decoded", flush=True)
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            generate(Path(folder, "photos"), photos, asked.size)
            own = {"data.root": f"{folder}/photos", "data.image_size": str(asked.size), "model.architecture": asked.architecture}
            lines = stages(Path(folder, "workspace"), RUN | own)
        found.append({"photos": photos, "decoded_mib": decoded, "stages": lines})
    if asked.write:
        asked.write.parent.mkdir(parents=True, exist_ok=True)
        asked.write.write_text(json.dumps({"size": asked.size, "architecture": asked.architecture, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
