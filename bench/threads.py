"""Measure optimizer steps of one process with one thread and with two, and of two processes with a thread each, on two cores.

    python bench/threads.py [--repeats 2] [--priority]

Ways take turns; a step's time is the median of some. --priority (root) raises the processes above all others for the seconds in which
steps are timed: on a machine with other work two threads wait for each other, and nothing else would tell what they are worth.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
from torch.nn.functional import cross_entropy

from lethe.models import architectures
from lethe.models.small_conv import quicken

CASES = (("resnet18", 128, 5), ("resnet18", 32, 8), ("convnet", 128, 60), ("convnet", 16, 200))  # batch size, steps
WAYS = {"one process, one thread": (1, 1), "one process, two threads": (1, 2), "two processes, one thread each": (2, 1)}


def prepared(architecture: str, batch: int) -> Callable[[], None]:
    """A step on one batch of random images of 32x32."""
    network = architectures.build(architecture, 10, 0)
    quicken(network)
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    images, labels = torch.randn(batch, 3, 32, 32).to(memory_format=torch.channels_last), torch.randint(0, 10, (batch,))

    def step() -> None:
        optimizer.zero_grad()
        cross_entropy(network(images), labels).backward()
        optimizer.step()

    return step


def raise_priority(nice: int) -> None:
    """Set the priority of every thread of this process."""
    for thread in Path("/proc/self/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(thread.name), nice)


def measure(threads: int, raised: bool) -> dict[str, float]:
    """Milliseconds of a step in each case; says that it is ready, and begins when all processes are told to."""
    torch.set_num_threads(threads)
    steps, found = [prepared(architecture, batch) for architecture, batch, _ in CASES], dict[str, float]()
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    print("ready", flush=True)
    sys.stdin.readline()
    for step, (architecture, batch, number) in zip(steps, CASES, strict=True):
        for _ in range(2):
            raise_priority(-20 if raised else usual)  # of the threads that the first step starts, too
            step()
        took = []
        for _ in range(number):
            began = time.perf_counter()
            step()
            took.append(time.perf_counter() - began)
        raise_priority(usual)
        found[f"{architecture}, batches of {batch}"] = 1000 * statistics.median(took)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--priority", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measure(asked.one, asked.priority)))
        return
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(asked.repeats):
        for way, (processes, threads) in WAYS.items():
            command = [sys.executable, __file__, "--one", str(threads), *(["--priority"] if asked.priority else [])]
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            pipe = subprocess.PIPE
            running = [subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True) for _ in range(processes)]
            if [process.stdout.readline() for process in running if process.stdout] != ["ready\n"] * processes:
                sys.exit("error: a process did not start")
            for process in running:
                assert process.stdin
                process.stdin.write("\n")
                process.stdin.flush()
            for process in running:
                for case, milliseconds in json.loads(process.communicate()[0]).items():
                    found[case][way].append(milliseconds)
    print(f"load {os.getloadavg()[0]:.1f}; milliseconds of a step, each process\n")
    print(f"| | {' | '.join(WAYS)} |\n|---|{'---:|' * len(WAYS)}")
    for case, ways in found.items():
        print(f"| {case} | {' | '.join(f'{min(took):.1f} to {max(took):.1f}' for took in ways.values())} |")


if __name__ == "__main__":
    main()
