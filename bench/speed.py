"""Measure how fast unlearning is compared with common ways to write it, in one process on this machine.

    python bench/speed.py [--repeats 5] [--device auto] [--threads N] [--retain 640] [--growth] [--write results/speed_cpu.json]

Hybrid-4 on random images, with the same optimizer steps in every variant, the variants alternating: (1) as in the report's notebook, (2)
tuned by the usual advice, (3) Lethe, and (3 tracked) Lethe with resume state and MLflow, (4) as many bare steps on one batch on the
device. Needs torch, torchvision and numpy; without mlflow, (3 tracked) is left out. Needs no data, no network, no workspace.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lethe.data.device_data import Data
from lethe.data.images import Images, load_images, save_images
from lethe.data.pixel_store import as_tensor
from lethe.engine import engine
from lethe.engine.frozen_prefix import Cut, Prefix, split
from lethe.engine.options import RunOptions
from lethe.evaluation import inference as predict
from lethe.models import architectures as model
from lethe.models.small_conv import quicken
from lethe.recipes.paper_methods import hybrid_4
from lethe.recipes.recipe import Phase, Recipe
from lethe.recipes.training import Training

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
SPLITS = ("retain", "forget", "validation", "test")
ROWS = {
    "notebook": "the notebook: DataLoader with 2 workers, float32, `.item()` at each step, all splits measured each epoch",
    "advice": "tuned by the usual advice: persistent workers, pinned memory, channels last, autocast where it pays, no `.item()`",
    "ours": "Lethe's engine, measured each epoch",
    "tracked": "Lethe with resume state, epoch table, curves and MLflow",
    "floor": "bare optimizer steps on one batch in memory, nothing measured",
}


@dataclass(frozen=True)
class Case:
    """A setting in which all variants take the same steps."""

    title: str
    batchnorm: Any
    unfreeze_at: float
    sizes: dict[str, int]
    epochs: int = 2
    final_epochs: int = 1
    batch_size: int = 128
    architecture: str = "resnet18"

    def recipe(self) -> Recipe:
        training = Training(0.001, "constant", 0.9, 0.0005, self.batch_size, ("layer4", "fc"), self.batchnorm, "last")
        unfreeze = ("layer1", "layer2") if self.unfreeze_at < 1 else ()
        return hybrid_4(
            training,
            epochs=self.epochs,
            peak=-0.1,
            shape="power",
            power=2.0,
            repair_every=0,
            final_epochs=self.final_epochs,
            unfreeze=unfreeze,
            unfreeze_at=self.unfreeze_at,
        )


@dataclass
class Setting:
    """A case on this machine: random images, a network, and the words that its recipe spells."""

    case: Case
    device: torch.device
    precision: torch.dtype
    images: np.ndarray[Any, Any] = field(init=False)
    labels: np.ndarray[Any, Any] = field(init=False)
    splits: dict[str, np.ndarray[Any, Any]] = field(init=False)

    def __post_init__(self) -> None:
        draw = np.random.default_rng(0)
        n = sum(self.case.sizes.values())
        self.images = draw.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8)
        self.labels = draw.integers(0, 10, n)
        ends = np.cumsum([self.case.sizes[name] for name in SPLITS])
        self.splits = dict(zip(SPLITS, np.split(draw.permutation(n), ends[:-1]), strict=True))

    def autocast(self) -> Any:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == torch.bfloat16)

    def network(self, placed: bool = True) -> nn.Module:
        network = model.build(self.case.architecture, 10, 0)
        if placed and self.device.type == "cpu":
            quicken(network)
        return network.to(device=self.device, memory_format=torch.channels_last if placed else torch.contiguous_format)  # type: ignore[call-overload,no-any-return]

    def data(self) -> Data:
        index = {name: torch.from_numpy(rows).to(self.device) for name, rows in self.splits.items()}
        mean, std = (torch.tensor(v, device=self.device).view(1, -1, 1, 1) for v in (MEAN, STD))
        return Data(as_tensor(self.images).to(self.device), torch.from_numpy(self.labels).to(self.device), index, mean, std, True)

    def words(self) -> Iterator[tuple[Phase, float, list[str]]]:
        """Every epoch: its phase, its time and its word."""
        for phase in self.case.recipe():
            assert isinstance(phase, Phase)
            lengths = {letter: -(-self.case.sizes[stream] // phase.batch_size) for letter, stream in phase.streams.items()}
            for epoch in range(phase.epochs):
                yield phase, epoch / phase.epochs, phase.batch_order(lengths, epoch)

    def seen(self) -> int:
        """Images that all the steps see."""
        return sum(self.case.sizes["retain" if "R" in set(word) else "forget"] for *_, word in self.words() if len(set(word)) == 1) + sum(
            self.case.sizes["retain"] + self.case.sizes["forget"] for *_, word in self.words() if len(set(word)) > 1
        )


def _frozen(network: nn.Module, trains: frozenset[str], batchnorm: str) -> None:
    network.train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in trains)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and batchnorm == "eval_frozen" and not any(p.requires_grad for p in module.parameters()):
            module.eval()


# --- the ways of today, written as people write them: not our code's way, on purpose ----------------------------------


class Pictures(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A split as torchvision's datasets hand it out: a PIL image through transforms."""

    def __init__(self, setting: Setting, split: str) -> None:
        from torchvision import transforms

        rows = setting.splits[split]
        self.images, self.labels = setting.images[rows].transpose(0, 2, 3, 1), setting.labels[rows]
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, at: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.images[at])), int(self.labels[at])


def today(setting: Setting, advised: bool) -> dict[str, float]:
    """The notebook's loop; `advised`: with what is usually advised."""
    case, device = setting.case, setting.device
    more: dict[str, Any] = {"persistent_workers": True, "pin_memory": device.type == "cuda"} if advised else {}
    batch = partial(torch.utils.data.DataLoader, batch_size=case.batch_size, num_workers=2, **more)
    loaders = {name: batch(Pictures(setting, name), shuffle=name in ("retain", "forget")) for name in SPLITS}
    readers = {name: batch(Pictures(setting, name), shuffle=False) for name in SPLITS} if advised else loaders
    network = setting.network(placed=False)
    if advised:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    cast = setting.autocast if advised else contextlib.nullcontext
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9, weight_decay=0.0005)
    steps = evaluating = 0.0

    def moved(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        images = images.to(device, non_blocking=advised)
        return (images.contiguous(memory_format=torch.channels_last) if advised else images), labels.to(device, non_blocking=advised)

    for phase, t, word in setting.words():
        _frozen(network, phase.trains(network, t), case.batchnorm)
        batches = {letter: iter(loaders[stream]) for letter, stream in phase.streams.items()}
        running: Any = 0.0
        began = time.perf_counter()
        for letter in word:
            images, labels = moved(*next(batches[letter]))
            optimizer.zero_grad()
            with cast():
                loss = cross_entropy(network(images), labels)
            (loss if letter == "R" else phase.scale(t) * loss).backward()  # type: ignore[operator]
            optimizer.step()
            running += loss.detach() if advised else loss.item()
        float(running)
        steps += time.perf_counter() - began
        began = time.perf_counter()
        network.eval()
        with torch.no_grad():
            for reader in readers.values():
                right: Any = 0
                for pair in reader:
                    images, labels = moved(*pair)
                    with cast():
                        found = (network(images).argmax(1) == labels).sum()
                    right += found if advised else found.item()
                float(right)
        evaluating += time.perf_counter() - began
    return {"steps": steps, "evaluating": evaluating}


# --- ours ---------------------------------------------------------------------------------------------------------------


def ours(setting: Setting) -> dict[str, float]:
    data, network = setting.data(), setting.network()
    evaluate = predict.evaluator(data, ("retain", "forget", "validation"), setting.autocast)
    options = RunOptions(evaluate=evaluate, autocast=setting.autocast, step_inputs=Prefix(1024, setting.autocast))
    epochs = engine.run(setting.case.recipe(), network, data, options)
    every = list(epochs)
    assert sum(epoch.images for epoch in every) == setting.seen(), "rows do the same steps"
    return {"steps": sum(e.seconds for e in every), "evaluating": sum(e.evaluate_seconds for e in every)}


def tracked(setting: Setting) -> dict[str, float]:
    """The same with all that watches a run; what it still sends when the run ends is in it."""
    from lethe.config import loader as config
    from lethe.engine.epoch_table import TIMES
    from lethe.pipeline.runner import start
    from lethe.workspace import workspace
    from lethe.workspace.plan import PlannedRun
    from lethe.workspace.run_names import RunId

    n = len(setting.labels)
    train = len(setting.splits["retain"]) + len(setting.splits["forget"])
    order = np.concatenate([setting.splits[name] for name in SPLITS])
    ids = tuple(f"train/{k}" for k in range(train)) + tuple(f"test/{k}" for k in range(n - train))
    images = Images(setting.images[order], setting.labels[order], ids, tuple("0123456789"), n - train)
    ends = np.cumsum([setting.case.sizes[name] for name in SPLITS])
    splits = dict(zip(SPLITS, np.split(np.arange(n), ends[:-1]), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        keys = {"run.workspace": folder, "run.log_model": "none", "run.device": str(setting.device)}
        keys["run.precision"] = "bfloat16" if setting.precision == torch.bfloat16 else "float32"
        said = config.load([word for key, value in keys.items() for word in (f"--{key}", value)])
        with contextlib.redirect_stderr(io.StringIO()):
            prepared = workspace.Prepared(said, images, splits)
            began = time.perf_counter()
            planned = PlannedRun(RunId("hybrid_4"), setting.case.recipe(), 0, None)
            with start(prepared, planned, launched=False) as run:
                following = time.perf_counter()
                for epoch in engine.run(planned.recipe, run.network, run.data, run.options, state=run.state):
                    run.record(epoch)
                followed = time.perf_counter() - following
                told = run.resume.history
        whole = time.perf_counter() - began
    steps = sum(row.get("epoch_seconds", 0.0) for row in told)
    evaluating = sum(row[TIMES[2]] for row in told)
    return {"steps": steps, "evaluating": evaluating, "watching": followed - steps - evaluating, "all": whole}


def start_up(repeats: int) -> dict[str, Any]:
    """Measure the seconds from the command line to the first step when data, original and retrained model exist: the demo's digits."""
    with tempfile.TemporaryDirectory() as folder:
        keys = {
            "method": "model_1",
            "run.workspace": folder,
            "pretrain.epochs": "1",
            "methods.model_1.epochs": "1",
            "methods.model_1.batch_size": "16",
            "run.evaluate": "false",
        }
        words = [word for key, value in keys.items() for word in (f"--{key}", value)]
        command = [sys.executable, str(Path(__file__).parents[1] / "src" / "demo.py"), *words]
        took = []
        for _ in range(repeats + 1):  # the first run creates what the others use
            began, said, seconds = time.perf_counter(), "", 0.0
            with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as run:
                for said in run.stderr or ():
                    if said.startswith("start"):
                        seconds = time.perf_counter() - began
            if run.returncode:
                raise RuntimeError(f"the run that is timed failed: {said}")
            took.append(seconds)
        return {"seconds": statistics.median(took[1:]), "all": took[1:]}


def floor(setting: Setting) -> dict[str, float]:
    """Take bare steps on one batch, or on one batch of cached features if frozen layers are cached; as a CUDA graph on a GPU."""
    data, network = setting.data(), setting.network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9, weight_decay=0.0005)
    batch = next(data.batches("retain", setting.case.batch_size, 0, 0))
    images, labels = batch.images_BCHW, batch.labels_B
    steps = 0.0
    for phase, t, word in setting.words():
        _frozen(network, phase.trains(network, t), setting.case.batchnorm)
        cut = split(network, phase.trains(network, t), images[:2])
        seen, inputs = network, images
        if isinstance(cut, Cut):
            with torch.no_grad(), setting.autocast():
                seen, inputs = cut.tail, cut.head(images)
            _frozen(network, phase.trains(network, t), setting.case.batchnorm)

        def step(seen: nn.Module = seen, inputs: Tensor = inputs) -> None:
            optimizer.zero_grad(set_to_none=True)
            with setting.autocast():
                loss = cross_entropy(seen(inputs), labels)
            loss.backward()
            optimizer.step()

        run = _captured(step) if setting.device.type == "cuda" else step
        began = time.perf_counter()
        for _ in word:
            run()
        if setting.device.type == "cuda":
            torch.cuda.synchronize()
        steps += time.perf_counter() - began
    return {"steps": steps, "evaluating": 0.0}


def _captured(step: Callable[[], None]) -> Callable[[], None]:
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


# --- measuring ----------------------------------------------------------------------------------------------------------


def peak_reset(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_mib(device: torch.device) -> float | None:
    """Peak memory of the device, or of this process without its workers; None if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    with contextlib.suppress(OSError, StopIteration):
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return None


def measure(setting: Setting, rows: dict[str, Callable[[Setting], dict[str, float]]], repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Run all variants in turn, `repeats` times, so that other load on the machine affects all of them alike."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in rows}
    for repeat in range(-1, repeats):  # the first time is warming up
        for name, row in rows.items():
            peak_reset(setting.device)
            began = time.perf_counter()
            parts = row(setting)
            parts.setdefault("all", time.perf_counter() - began)
            if repeat >= 0:
                runs[name].append({**parts, "peak_mib": peak_mib(setting.device)})
            print(f"  {name:<9} {parts['all']:7.2f} s, steps {parts['steps']:7.2f}, evaluation {parts['evaluating']:6.2f}", file=sys.stderr)
    return runs


def summary(setting: Setting, runs: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Summarise each variant: medians of the repeats, ratios of the medians."""

    def middle(name: str, key: str) -> float:
        return statistics.median(run[key] for run in runs[name])

    epochs = sum(1 for _ in setting.words())
    lines = []
    for name in runs:
        whole, steps = middle(name, "all"), middle(name, "steps")
        lines.append(
            {
                "row": name,
                "images_per_second": setting.seen() / whole,
                "epoch_seconds": whole / epochs,
                "times_notebook": middle("notebook", "all") / whole,
                "times_advice": middle("advice", "all") / whole,
                "steps_share_of_floor": middle("floor", "steps") / steps,
                "evaluation_share": middle(name, "evaluating") / whole,
                "rest_share": max(0.0, 1 - (steps + middle(name, "evaluating")) / whole),
                **(
                    {"watching_share": middle(name, "watching") / (middle(name, "watching") + steps + middle(name, "evaluating"))}
                    if "watching" in runs[name][0]
                    else {}
                ),
                "peak_mib": max((run["peak_mib"] or 0 for run in runs[name]), default=0),
            }
        )
    return lines


def growth(device: torch.device) -> list[dict[str, Any]]:
    """Time Lethe with the demo's small network: one hybrid epoch over more images, and over larger shares of them to forget."""
    lines = []
    for total, share in ((5_000, 0.1), (20_000, 0.1), (80_000, 0.1), (20_000, 0.01), (20_000, 0.5)):
        command = [
            sys.executable,
            __file__,
            "--device",
            str(device),
            "--threads",
            str(torch.get_num_threads()),
            "--grown",
            str(total),
            str(share),
        ]
        answer = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout  # a process of its own, whose peak is its own
        lines.append(json.loads(answer))
        print(f"  {lines[-1]}", file=sys.stderr)
    return lines


def grown(device: torch.device, precision: torch.dtype, total: int, share: float) -> dict[str, Any]:
    """One line of `growth`, with the images in a file as a workspace has them."""
    forget = round(total * share)
    sizes = {"retain": total - forget, "forget": forget, "validation": 1_000, "test": 1_000}
    setting = Setting(Case("growth", "train", 1.0, sizes, 1, 0, architecture="convnet"), device, precision)
    with tempfile.TemporaryDirectory() as folder:
        ids = tuple(map(str, range(len(setting.labels))))
        save_images(Images(setting.images, setting.labels, ids, tuple("0123456789"), 2_000), Path(folder, "images"), "")
        setting.images = load_images(Path(folder, "images"))[0].pixels
    peak_reset(device)
    took = [ours(setting) for _ in range(3)]
    seconds = statistics.median(parts["steps"] + parts["evaluating"] for parts in took)
    return {"train_images": total, "forget_share": share, "seconds": seconds, "peak_mib": peak_mib(device)}


def machine(device: torch.device, precision: torch.dtype) -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        cpu = next(line.partition(": ")[2] for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    known = {"cpu": cpu, "cores": os.cpu_count(), "threads": torch.get_num_threads(), "python": platform.python_version()}
    known |= {"torch": torch.__version__, "device": str(device), "precision": str(precision).removeprefix("torch.")}
    return known | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--retain", type=int, help="retain images; default 640, on a GPU 45,000")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--growth", action="store_true", help="also measure how time and memory grow with the data")
    parser.add_argument("--grown", nargs=2, metavar=("IMAGES", "SHARE"), help="only one line of that, as JSON")
    parser.add_argument("--write", type=Path, help="every run and the machine, as JSON")
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    device = torch.device(asked.device)
    precision = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if asked.grown:
        print(json.dumps(grown(device, precision, int(asked.grown[0]), float(asked.grown[1]))))
        return
    retain = asked.retain or (45_000 if device.type == "cuda" else 640)
    sizes = {"retain": retain, "forget": max(128, retain // 9), "validation": max(128, retain // 9), "test": max(128, retain // 9)}
    cases = [
        Case("Hybrid-4, all BatchNorm statistics updated (as in the report)", "train", 0.5, sizes),
        Case("only the last block and the head are trained, batchnorm: eval_frozen", "eval_frozen", 1.0, sizes),
    ]
    functions = {
        "notebook": partial(today, advised=False),
        "advice": partial(today, advised=True),
        "ours": ours,
        "tracked": tracked,
        "floor": floor,
    }
    rows = {name: functions[name] for name in asked.rows.split(",")}
    if not importlib.util.find_spec("mlflow"):
        rows.pop("tracked", None)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{tempfile.mkdtemp()}/mlflow.db"  # not your runs
    found: dict[str, Any] = {"machine": machine(device, precision), "rows": ROWS, "cases": []}
    for case in cases:
        print(case.title, file=sys.stderr)
        setting = Setting(case, device, precision)
        runs = measure(setting, rows, asked.repeats)
        lines = summary(setting, runs)
        found["cases"].append({"title": case.title, "sizes": sizes, "images": setting.seen(), "lines": lines, "runs": runs})
        print(f"\n{case.title}; {setting.seen():,} images in {sum(len(word) for *_, word in setting.words())} steps")
        print(f"{'':<10} {'img/s':>8} {'s/epoch':>8} {'x nb':>6} {'x adv':>6} {'floor':>6} {'eval':>6} {'rest':>6} {'MiB':>7}")
        for line in lines:
            shares = [f"{100 * line[key]:5.0f}%" for key in ("steps_share_of_floor", "evaluation_share", "rest_share")]
            numbers = (
                f"{line['images_per_second']:8.0f} {line['epoch_seconds']:8.2f} {line['times_notebook']:6.2f} {line['times_advice']:6.2f}"
            )
            print(f"{line['row']:<10} {numbers} {' '.join(shares)} {line['peak_mib']:7.0f}", flush=True)
    if asked.growth:
        found["growth"] = growth(device)
    if "tracked" in rows:
        found["start_up"] = start_up(asked.repeats)
        print(f"\nfrom the command line to the first step: {found['start_up']['seconds']:.1f} s")
    if asked.write:
        asked.write.parent.mkdir(parents=True, exist_ok=True)
        asked.write.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
