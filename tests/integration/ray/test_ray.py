"""Units of work as tasks of a real Ray cluster of two nodes on this machine: placed, killed with -9, found again."""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.project import NET, ROOT, Project, alive, clean, until
from support.searches import SMALL, trials

DRIVER = """
import json, sys
from support import units
from lethe.parallel.pool import map_units
name, folder, gpus, *numbers = sys.argv[1:]
items = [(folder, int(n)) if name == "kept" else int(n) for n in numbers]
for item, result in map_units(getattr(units, name), items, workers=4, gpus=float(gpus)):
    print(json.dumps([item[1] if name == "kept" else item, result]), flush=True)
"""


@dataclass
class Cluster:
    """`ray start` for a head and a node, each with two CPUs and two GPUs that are only counted."""

    folder: Path
    address: str
    nodes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    token: str = field(default_factory=lambda: secrets.token_hex(32))  # Ray listens on all interfaces

    def environment(self) -> dict[str, str]:
        known = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "PYTHONUNBUFFERED": "1"}
        known |= {"RAY_worker_niceness": "0"}  # Ray's own is 15, which on busy cores is next to nothing
        return clean() | known | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}

    def start(self) -> None:
        first = ["--head", "--port", self.address.rpartition(":")[2], "--include-dashboard=false", "--temp-dir", str(self.folder)]
        own = first if not self.nodes else ["--address", self.address]
        command = [str(Path(sys.executable).with_name("ray")), "start", *own, "--node-ip-address=127.0.0.1", "--num-cpus=2", "--num-gpus=2"]
        log = self.folder / f"{len(self.nodes)}.log"
        with log.open("wb") as file:
            command += ["--object-store-memory=80000000", "--block"]
            self.nodes.append(subprocess.Popen(command, env=self.environment(), stdout=file, stderr=file))
        until(lambda: "Ray runtime started" in log.read_text() or self.nodes[-1].poll() is not None)
        assert self.nodes[-1].poll() is None, log.read_text()

    def stop(self, node: int) -> None:
        """All its processes, at once and without a word."""
        if self.nodes[node].poll() is None:
            above = psutil.Process(self.nodes[node].pid)
            for process in [above, *above.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):  # by itself, in between
                    process.kill()
            self.nodes[node].wait()

    def holds(self, node: int, pid: int) -> bool:
        return any(child.pid == pid for child in psutil.Process(self.nodes[node].pid).children(recursive=True))

    def drive(self, *argv: object, **more: str) -> "subprocess.Popen[str]":
        environment = self.environment() | {"RAY_ADDRESS": self.address} | more
        command = [sys.executable, *map(str, argv)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder)

    def driven(self, *argv: object, **more: str) -> list[list[Any]]:
        return finished(self.drive("-c", DRIVER, *argv, **more))


def finished(driver: "subprocess.Popen[str]") -> list[list[Any]]:
    """What it printed, sorted; Ray's own lines left out."""
    out, err = driver.communicate(timeout=NET)
    assert driver.returncode == 0, err
    return sorted(json.loads(line) for line in out.splitlines() if line.startswith("["))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    pytest.importorskip("ray", reason="Ray is not installed: make ray")
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: a socket's path may have 107 characters
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        cluster = Cluster(folder, f"127.0.0.1:{it.getsockname()[1]}")
    try:
        cluster.start()
        cluster.start()
        yield cluster
    finally:
        for node in range(len(cluster.nodes)):
            cluster.stop(node)
        shutil.rmtree(folder, ignore_errors=True)


def tries(folder: Path) -> dict[int, list[int]]:
    """Number of a unit -> the processes that tried it."""
    pids = {int(path.stem): [int(line) for line in path.read_text().split()] for path in folder.glob("*.tried")}
    return {n: each for n, each in pids.items() if each}  # a file that was just opened is empty


@pytest.mark.slow
def test_a_cluster_on_which_everything_dies(cluster: Cluster, project: Project, tmp_path: Path) -> None:
    """One cluster for it all, for it takes Ray long to start."""
    # A search: trials and the winner's fresh seeds are tasks, each with a row of its own below the search's
    more = cluster.environment() | {"RAY_ADDRESS": cluster.address}
    keys = [*SMALL, "--search.trials", "4", "--search.workers", "2", "--search.fresh_seeds", "2", "--search.gpus", "0"]
    searched = project.lethe("search", *keys, **more)
    assert searched.returncode == 0, searched.stderr
    found = trials(project)
    assert [trial["state"] for trial in found] == ["COMPLETE"] * 4
    above, *below = project.rows()
    assert above["name"] == "search/hybrid_4"
    assert {row["status"] for row in (above, *below)} == {"FINISHED"}
    assert {row["tags"]["mlflow.parentRunId"] for row in below} == {above["run_id"]}
    assert sorted(row["tags"]["trial"] for row in below if "fresh" not in row["tags"]) == ["0", "1", "2", "3"]
    assert len([row for row in below if "fresh" in row["tags"]]) >= 2

    # Placed, with shares of GPUs; what says where rows are kept goes along, and is in nobody's log
    secret = secrets.token_hex(8)
    said = cluster.driven("told", "-", 0.5, 0, 1, 2, 3, 4, 5, 6, 7, MLFLOW_TRACKING_PASSWORD=secret)
    assert [n for n, _ in said] == list(range(8))
    assert {(password, folder) for _, (password, folder, _) in said} == {(secret, str(cluster.folder))}
    assert {card for _, (_, _, card) in said} <= {"0", "1"}
    logs = [file.read_bytes() for file in cluster.folder.rglob("*.log")]
    assert len(logs) > 5
    assert not any(secret.encode() in log for log in logs)

    # Stopped by a person: every unit is told
    driver = cluster.drive(ROOT / "tests" / "support" / "units.py", tmp_path)
    began = [tmp_path / f"{n}.began" for n in range(2)]
    until(lambda: all(path.exists() and path.read_text() for path in began))
    driver.send_signal(signal.SIGINT)
    driver.communicate(timeout=NET)
    assert all((tmp_path / f"{n}.stopped").exists() for n in range(2))

    # The driver dies: only what was running runs again
    folder = tmp_path / "driver"
    folder.mkdir()
    driver = cluster.drive("-c", DRIVER, "kept", folder, 0, 0, 1, 2, 3)
    until(lambda: len(tries(folder)) == 4 and all((folder / str(n)).exists() for n in (0, 1)))
    driver.kill()
    driver.communicate()
    until(lambda: not any(alive(pid) for n in (2, 3) for pid in tries(folder)[n]))
    (folder / "go").touch()
    assert cluster.driven("kept", folder, 0, 0, 1, 2, 3) == [[n, n * n] for n in range(4)]
    assert {n: len(pids) for n, pids in tries(folder).items()} == {0: 1, 1: 1, 2: 2, 3: 2}

    # A worker dies, then a node: every unit is there, once
    folder = tmp_path / "nodes"
    folder.mkdir()
    driver = cluster.drive("-c", DRIVER, "kept", folder, 0, *range(10))
    until(lambda: len(tries(folder)) == 6)  # two are through, four wait
    first = {n: pids[0] for n, pids in tries(folder).items()}
    on_second = [n for n in range(2, 6) if cluster.holds(1, first[n])]
    assert len(on_second) == 2
    victim = next(n for n in range(2, 6) if n not in on_second)
    os.kill(first[victim], signal.SIGKILL)
    until(lambda: len(tries(folder)[victim]) == 2)
    cluster.stop(1)
    (folder / "go").touch()
    assert finished(driver) == [[n, n * n] for n in range(10)]
    again = {n for n, pids in tries(folder).items() if len(pids) > 1}
    assert again == {victim, *on_second}


def test_without_a_cluster_ray_is_not_imported(tmp_path: Path) -> None:
    code = "import sys; from support import units; from lethe.parallel.pool import map_units; "
    code += f"print(len(list(map_units(units.kept, [({str(tmp_path)!r}, n) for n in (0, 1)]))), 'ray' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = f"{ROOT / 'src'}:{ROOT / 'tests'}"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "2 False\n"
