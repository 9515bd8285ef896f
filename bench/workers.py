"""Measure what several workers are worth: seeds, a bank, a search and a leaderboard in one process with one thread and with two, by two
workers with a thread each, and as tasks of a Ray cluster of one and of two nodes on this machine, each on a core of its own.

    python bench/workers.py [--projects small,resnet18] [--works seeds,bank,search,leaderboard] [--ways ...] [--repeats 3] [--write FILE]

Every run starts from a copy of a workspace with original and retrained model, and makes --models of them: seeds, retrained models of the
bank, trials, rows. Ways take turns. Of each run: seconds by the clock, and to the beginning of the first unit; processor seconds of all its
processes, and on its longest path (of the command's main thread and of the worker or node that has most to do), which is what an idle
machine would take at best; the largest process; and the machine's load. Where the load is above the number of cores, only processor
seconds can be compared: by the clock two processes get twice the share of one. Ray's nodes start before the clock does. Needs no data and
no network connection; Linux only; Ray: make ray.
"""

import argparse
import contextlib
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

HOME = Path(__file__).parents[1]
CLASSES = 10
# files that appear in .lethe when a unit begins
UNIT = {
    "seeds": "locks/*.seed*.pid",
    "bank": "bank/*/*/seeds.json",
    "search": "locks/search.*.*.*.*.lock",
    "leaderboard": "locks/*_at_*.pid",
}
ROWS = ("ft", "not", "l1_sparse", "random_label", "salun", "eu_k", "bad_teacher", "neggrad_plus")  # cf_k would take thousands of epochs
MODEL_2 = "methods.model_2"


@dataclass(frozen=True)
class Project:
    """Images and a network.

    Attributes:
        about: what they are.
        keys: by which the workspace is made.
        share: of the cost of retraining, of the leaderboard's rows.
    """

    about: str
    keys: Mapping[str, str]
    share: str


TRAINING = {"pretrain.min_steps": "0", "pretrain.final_epochs": "1", "run.log_model": "none", "run.device": "cpu", "run.threads": "1"}
PROJECTS = {
    "small": Project(
        "digits, 200 train images, convnet (20,554 weights)",
        {
            **{"data.source": "digits", "data.limit": "20", "data.forget.fraction": "0.5", "model.architecture": "convnet"},
            **{"pretrain.epochs": "18", "pretrain.batch_size": "16", "pretrain.crop": "0", "pretrain.flip": "false"},
            **{f"{MODEL_2}.epochs": "20", f"{MODEL_2}.batch_size": "16", f"{MODEL_2}.lr": "0.02"},
        },
        "0.5",
    ),
    "resnet18": Project(
        "315 train images of 32x32, ResNet-18 (11.2 million weights)",
        {
            **{"data.source": "npz", "data.forget.fraction": "0.1", "model.architecture": "resnet18", "evaluate.perturbed": "200"},
            **{"pretrain.epochs": "3", "pretrain.batch_size": "32"},
            **{f"{MODEL_2}.epochs": "5", f"{MODEL_2}.batch_size": "32"},
        },
        "0.3",
    ),
}
WORKS = {
    "seeds": ("unlearn", "--method", "model_2", "--run.seeds", "{models}"),
    "bank": ("bank", "--retrain.seeds", "{models}"),
    "search": (
        *("search", "--search.method", "model_2", "--search.trials", "{models}", "--search.fresh_seeds", "0", "--search.sampler", "random"),
        *("--search.prune", "false", "--search.spaces.model_2.epochs.low", "{epochs}", "--search.spaces.model_2.epochs.high", "{above}"),
    ),
    "leaderboard": ("leaderboard", "--method", "{methods}", "--share", "{share}"),
}


@dataclass(frozen=True)
class Way:
    """How a command does its work.

    Attributes:
        about: for the table.
        threads: of a process.
        workers: that run in parallel.
        nodes: of a Ray cluster, each on one core; 0: none.
    """

    about: str
    threads: int
    workers: int = 1
    nodes: int = 0


WAYS = {
    "1": Way("one process, one thread", 1),
    "threads": Way("one process, two threads", 2),
    "workers": Way("two workers, one thread each", 1, 2),
    "ray1": Way("Ray, one node with one core", 1, 1, 1),
    "ray2": Way("Ray, two nodes with one core each", 1, 2, 2),
}


def generate(path: Path, images: int) -> None:
    """Write smooth random images in two shades a class, an eighth of them for testing."""
    draw = np.random.default_rng(0)
    labels = np.arange(images) % CLASSES
    coarse = draw.integers(0, 256, (images, 4, 4, 3), np.uint8)
    coarse[:, 0] = 25 * labels[:, None, None]
    pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)
    held_out = images // 8
    train, test = slice(held_out, None), slice(held_out)
    np.savez(path, train_images=pixels[train], train_labels=labels[train], test_images=pixels[test], test_labels=labels[test])


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Of a command: a store of its own, and no more threads than it is told."""
    known = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_", "RAY_", "OMP_", "MKL_"))}
    return known | {"PYTHONPATH": str(HOME / "src"), "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "PYTHONUNBUFFERED": "1"} | more


def standing(project: Project, folder: Path) -> Path:
    """Make a workspace with original and retrained model, and return it."""
    workspace, keys = folder / "standing", dict(project.keys)
    if keys["data.source"] == "npz":
        generate(folder / "images.npz", 360)
        keys["data.root"] = str(folder / "images.npz")
    words = [word for key, value in (keys | TRAINING).items() for word in (f"--{key}", value)]
    command = [sys.executable, "src/unlearn.py", "--method", "model_1", "--methods.model_1.epochs", "1", *words]
    few = ["--methods.model_1.batch_size", "16", "--run.workspace", str(workspace)]
    subprocess.run([*command, *few], cwd=HOME, env=environment(folder), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return workspace


class Cluster:
    """Ray's nodes on this machine, each with one processor, to which it is bound."""

    def __init__(self, folder: Path) -> None:
        """A cluster without nodes, whose files are in a folder with a short path."""
        self.folder, self.nodes, self.token = folder, list[subprocess.Popen[bytes]](), secrets.token_hex(32)
        with socket.socket() as it:
            it.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{it.getsockname()[1]}"

    @property
    def variables(self) -> dict[str, str]:
        """What a node and a driver need; Ray would run tasks at niceness 15, which on a machine with other work is next to nothing."""
        return {"RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def start(self) -> None:
        """Start a node on the next core."""
        core = sorted(os.sched_getaffinity(0))[len(self.nodes)]
        first = ["--head", "--port", self.address.rpartition(":")[2], "--include-dashboard=false", "--temp-dir", str(self.folder)]
        own = ["--address", self.address] if self.nodes else first
        size = ["--num-cpus=1", "--node-ip-address=127.0.0.1", "--object-store-memory=80000000", "--block"]
        command = ["taskset", "--cpu-list", str(core), str(Path(sys.executable).with_name("ray")), "start", *own, *size]
        log = self.folder / f"{len(self.nodes)}.log"
        with log.open("wb") as file:
            self.nodes.append(subprocess.Popen(command, env=environment(self.folder, **self.variables), stdout=file, stderr=file))
        while "Ray runtime started" not in log.read_text():
            if self.nodes[-1].poll() is not None:
                sys.exit(f"error: ray start: {log.read_text()}")
            time.sleep(0.2)

    def processes(self) -> list[psutil.Process]:
        """All processes of all nodes."""
        return [process for node in self.nodes for process in tree(node.pid)]

    def seconds(self) -> dict[tuple[int, int], float]:
        """Processor seconds so far, by node and process."""
        return {(at, each.pid): own_seconds(each) for at, node in enumerate(self.nodes) for each in tree(node.pid)}

    def stop(self) -> None:
        """Kill all processes."""
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for node in self.nodes:
            node.wait()


def tree(pid: int) -> list[psutil.Process]:
    """A process and its descendants; none once it has ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        above = psutil.Process(pid)
        return [above, *above.children(recursive=True)]
    return []


def main_threads(pid: int) -> dict[int, float]:
    """Processor seconds of the main threads of a process and its descendants so far, by process."""
    found = dict[int, float]()
    for process in tree(pid):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            found |= {each.id: each.user_time + each.system_time for each in process.threads() if each.id == process.pid}
    return found


def own_seconds(process: psutil.Process) -> float:
    """User and system time of a process."""
    try:
        return float(sum(process.cpu_times()[:2]))
    except psutil.NoSuchProcess:
        return 0.0


def longest(pid: int, threads: Mapping[int, float], tasks: Mapping[tuple[int, int], float]) -> float:
    """Processor seconds of the command's main thread and of the worker or node that had most to do."""
    nodes = [sum(seconds for (at, _), seconds in tasks.items() if at == node) for node in {at for at, _ in tasks}]
    return threads.get(pid, 0.0) + max([seconds for each, seconds in threads.items() if each != pid] + nodes, default=0.0)


@contextlib.contextmanager
def cluster(nodes: int) -> Iterator[Cluster | None]:
    """Nodes that run; None: none are asked for."""
    if not nodes:
        yield None
        return
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: a socket's path may have 107 characters
    started = Cluster(folder)
    try:
        for _ in range(nodes):
            started.start()
        yield started
    finally:
        started.stop()
        shutil.rmtree(folder, ignore_errors=True)


def run(workspace: Path, work: str, words: Sequence[str], way: Way) -> dict[str, Any]:
    """Run one command and measure it."""
    workers = "search.workers" if work == "search" else "run.workers"
    own = [f"--{workers}", str(way.workers), "--run.threads", str(way.threads), "--run.workspace", str(workspace)]
    with cluster(way.nodes) as started:
        more = {"OMP_NUM_THREADS": str(way.threads)} | ({"RAY_ADDRESS": started.address, **started.variables} if started else {})
        before, load, began = started.seconds() if started else {}, os.getloadavg()[0], time.monotonic()
        known = set((workspace / ".lethe").glob(UNIT[work]))
        command = [sys.executable, f"src/{words[0]}.py", *words[1:], *own]
        process = subprocess.Popen(command, cwd=HOME, env=environment(workspace, **more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        first, out = list[float](), list[bytes]()
        reader = threading.Thread(target=lambda: out.extend(process.stdout or ()))
        reader.start()
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        threads, tasks = dict[int, float](), dict[tuple[int, int], float]()
        while not ended:
            threads |= main_threads(process.pid)
            if started:  # sampled, because tasks end with the driver
                tasks |= {each: now - before.get(each, 0.0) for each, now in started.seconds().items() if now}
            if not first and set((workspace / ".lethe").glob(UNIT[work])) - known:
                first += [time.monotonic() - began, longest(process.pid, threads, tasks)]
            time.sleep(0.2)
            ended, status, used = os.wait4(process.pid, os.WNOHANG)
        seconds = time.monotonic() - began
        reader.join()
        if status:
            sys.exit(f"error: {' '.join(command)}: {b''.join(out[-5:]).decode()}")
    total, path = used.ru_utime + used.ru_stime + sum(tasks.values()), longest(process.pid, threads, tasks)
    measured: dict[str, Any] = {"seconds": seconds, "processor": total, "path": path, "load": [load, os.getloadavg()[0]]}
    measured |= {"seconds_to_first_unit": first[0], "path_to_first_unit": first[1]}
    return measured | ({} if started else {"peak_gib": used.ru_maxrss / 2**20})


def batches(project: Project, work: str, models: int) -> list[str]:
    """Keys that a workspace does not remember, since they are of methods that did not run there: batches must fit into few images."""
    own = {key: value for key, value in project.keys.items() if key.startswith(f"{MODEL_2}.")}
    rows = {f"methods.{row}.batch_size": own[f"{MODEL_2}.batch_size"] for row in ROWS[:models]}
    keys = {"seeds": own, "search": own, "leaderboard": rows}.get(work, {})
    return [word for key, value in keys.items() for word in (f"--{key}", value)]


def measure(projects: Sequence[str], works: Sequence[str], ways: Sequence[str], models: int, repeats: int) -> Iterator[dict[str, Any]]:
    """Run everything by turns; yield what each run took."""
    for name in projects:
        project = PROJECTS[name]
        with tempfile.TemporaryDirectory() as folder:
            workspace = standing(project, Path(folder))
            methods = ",".join(ROWS[:models])
            epochs = project.keys[f"{MODEL_2}.epochs"]
            fill = {"models": models, "methods": methods, "share": project.share, "epochs": epochs, "above": int(epochs) + 1}
            for turn in range(repeats):
                for work in works:
                    words = [*(word.format(**fill) for word in WORKS[work]), *batches(project, work, models)]
                    for way in ways:
                        live = Path(folder) / "live"
                        shutil.copytree(workspace, live)
                        yield {"project": name, "work": work, "way": way, "turn": turn} | run(live, work, words, WAYS[way])
                        shutil.rmtree(live)


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """The least of the turns, as a table in Markdown."""
    heads = ("project", "work", "way", "processor seconds", "longest path", "of it to the first unit", "by the clock", "load")
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * 3}{'---:|' * 5}"]
    for key in dict.fromkeys((run["project"], run["work"], run["way"]) for run in runs):
        same = [run for run in runs if (run["project"], run["work"], run["way"]) == key]
        numbers = [min(run[name] for run in same) for name in ("processor", "path", "path_to_first_unit", "seconds")]
        loads = [load for run in same for load in run["load"]]
        cells = [*key[:2], WAYS[key[2]].about, *(f"{number:.1f}" for number in numbers), f"{min(loads):.1f} to {max(loads):.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, known in (("projects", PROJECTS), ("works", WORKS), ("ways", WAYS)):
        parser.add_argument(f"--{name}", default=",".join(known), help="of these, separated by commas: %(default)s")
    parser.add_argument("--models", type=int, default=8, help=f"of each command, at most {len(ROWS)} [8]")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", type=Path, help="a JSON file; runs that are in it are kept and count")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nodes end with this process
    kept = json.loads(asked.write.read_text())["runs"] if asked.write and asked.write.exists() else []
    runs = list[dict[str, Any]](kept)
    for found in measure(asked.projects.split(","), asked.works.split(","), asked.ways.split(","), asked.models, asked.repeats):
        runs.append(found)
        print(found, file=sys.stderr, flush=True)
        if asked.write:
            asked.write.parent.mkdir(parents=True, exist_ok=True)
            machine = {"cpu": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))}
            asked.write.write_text(json.dumps({"models": asked.models, **machine, "runs": runs}, indent=1) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()
