"""Measure the memory of every stage on photos that do not fit in it: generated JPEG files, decoded to --size pixels.

    python bench/memory.py [--photos 5000,20000] [--size 224] [--architecture memory:patches] [--write FILE]

Prepare, unlearn (which trains the original and the retrained model, an epoch each), evaluate and card, each as a process of its own, whose
peak is what the system reports (ru_maxrss, with what it holds of mapped files). The default network is small, so that what is measured is
the images' memory and not the activations'. Needs no data and no network connection.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import nn

HOME = Path(__file__).parents[1]
CLASSES = 10
RUN = {"methods.model_1.epochs": "1", "methods.model_1.batch_size": "16"}
KEYS = {
    "data.source": "image_folder",
    "pretrain.epochs": "1",
    "pretrain.final_epochs": "0",
    "pretrain.min_steps": "1",
    "pretrain.batch_size": "16",
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


def stages(source: Path, workspace: Path, size: int, architecture: str) -> list[dict[str, Any]]:
    """Run the four stages; of each the peak in MiB, seconds and processor seconds."""
    keys = KEYS | {"data.root": str(source), "data.image_size": str(size), "model.architecture": architecture}
    keys |= {"run.workspace": str(workspace), "method": "model_1", **RUN}
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
    parser.add_argument("--write", type=Path, help="all numbers, as JSON")
    asked = parser.parse_args()
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tempfile.mkdtemp()}/mlflow.db"  # not your runs
    found = []
    for photos in map(int, asked.photos.split(",")):
        decoded = photos * 3 * asked.size**2 / 2**20
        print(f"{photos:,} photos of {asked.size} pixels, {decoded:,.0f} MiB decoded", flush=True)
        with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
            generate(Path(folder, "photos"), photos, asked.size)
            lines = stages(Path(folder, "photos"), Path(folder, "workspace"), asked.size, asked.architecture)
        found.append({"photos": photos, "decoded_mib": decoded, "stages": lines})
    if asked.write:
        asked.write.parent.mkdir(parents=True, exist_ok=True)
        asked.write.write_text(json.dumps({"size": asked.size, "architecture": asked.architecture, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
