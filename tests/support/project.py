"""A small real project to run the stages in, and the stages as processes.

Imports take each process five seconds and more, so most tests fork theirs from a parent that has imported everything:
`python tests/support/project.py` is that parent, one for all workers. A forked stage is a process like any other: its own
memory, arguments, environment, working folder and exit code, and `kill -9` kills it. It draws no curves unless it is told
to, by CURVES.
"""

import atexit
import ctypes
import faulthandler
import fcntl
import gc
import importlib
import importlib.util
import itertools
import json
import multiprocessing.util
import os
import resource
import runpy
import select
import selectors
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, cast

from filelock import FileLock

ROOT = Path(__file__).parents[2]

# The values of `demo` in params.yaml, and still less of everything: 60 images to retain and 60 to forget
LESS: dict[str, dict[str, Any]] = {
    "data": {"limit": 12, "forget": {"fraction": 0.5}},
    "pretrain": {"epochs": 2, "final_epochs": 1, "min_steps": 0, "crop": 2, "flip": True},
    "retrain": {"epochs": None},
    "run": {"workspace": ".", "log_model": "none"},
    "search": {"fresh_seeds": 0},
}
FEW = {"epochs": 3, "retain_epochs": 12, "final_epochs": 2, "repair_every": 2, "batch_size": 8, "lr": 0.01, "share": 0.01}


NET = 1200  # seconds: many times what anything takes on a loaded machine; it only keeps a test that hangs from hanging for ever


def until(condition: Callable[[], object], why: Callable[[], str] = str) -> None:
    """Wait until the condition holds; `why`: what is known if it never does."""
    end = time.monotonic() + NET
    while not condition():
        assert time.monotonic() < end, why()
        time.sleep(0.02)


def alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def clean() -> dict[str, str]:
    """The environment without what leads to another store or checkout."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "DVC_"))}


def at(call: str, times: int, number: int = signal.SIGKILL, file: str | None = None) -> dict[str, str]:
    """For the environment of a forked stage: it gets a signal right before its `times`-th call of a function (module:name);
    with `file`, before its `times`-th call with a path of that name."""
    return {"HIT": json.dumps({"call": call, "times": times, "number": number, "file": file})}


def at_step(times: int, number: int = signal.SIGKILL) -> dict[str, str]:
    return at("torch.optim:SGD.step", times, number)


def at_file(name: str, times: int = 1, number: int = signal.SIGKILL) -> dict[str, str]:
    """When the file is written and not yet in its place."""
    return at("pathlib:Path.replace", times, number, name)


def no_larger(size: int) -> dict[str, str]:
    """For the environment of a forked stage: a disk on which no file grows beyond so many bytes."""
    return {"LARGEST": str(size)}


def limited(**limits: int) -> dict[str, str]:
    """For the environment of a forked stage: its limits (NOFILE, NPROC, ...), and USER, the number of the user that it becomes."""
    return {"LIMITS": json.dumps(limits)}


def clock_back(seconds: float) -> dict[str, str]:
    """For the environment of a forked stage: a wall clock that is set back by so much whenever it is read."""
    return {"CLOCK_BACK": str(seconds)}


@dataclass(frozen=True)
class Project:
    """A folder that holds params.yaml, what the stages make of it, and mlflow.db. It is DVC_ROOT: a stage takes it for the checkout."""

    root: Path
    warm: "Warm"

    def environment(self, **more: str) -> dict[str, str]:
        return clean() | {"DVC_ROOT": str(self.root), "OMP_NUM_THREADS": "1", "CURVES": "none"} | more

    def start(self, stage: str, *argv: str, **more: str) -> "Started":
        return self.warm.start([str(ROOT / "src" / f"{stage}.py"), *argv], self.root, self.environment(**more))

    def run(self, stage: str, *argv: str, **more: str) -> subprocess.CompletedProcess[str]:
        return self.start(stage, *argv, **more).wait()

    def ran(self, stage: str, *argv: str, **more: str) -> subprocess.CompletedProcess[str]:
        """`run`, and it went well."""
        done = self.run(stage, *argv, **more)
        assert done.returncode == 0, done.stderr
        return done

    def lethe(self, stage: str, *argv: str, **more: str) -> subprocess.CompletedProcess[str]:
        """As typed, in an interpreter of its own."""
        command = [sys.executable, str(ROOT / "src" / f"{stage}.py"), *argv]
        return subprocess.run(command, cwd=self.root, env=self.environment(**more), capture_output=True, text=True, timeout=NET)

    def script(self, text: str, **more: str) -> str:
        """What a Python text prints, in a forked process."""
        file = self.root.parent / "script.py"
        file.write_text(text)
        done = self.warm.start([str(file)], self.root, self.environment(**more)).wait()
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def files(self) -> dict[str, bytes]:
        """All that a stage can have written, but for the store."""
        everything = (path for path in self.root.rglob("*") if path.is_file() and path.name != "mlflow.db")
        return {str(path.relative_to(self.root)): path.read_bytes() for path in everything}

    def times(self, run_id: str, key: str) -> dict[int, int]:
        """When each step of a metric was, in milliseconds, as the store has it."""
        with sqlite3.connect(self.root / "mlflow.db") as db:
            return dict(db.execute("select step, timestamp from metrics where run_uuid = ? and key = ?", [run_id, key]))

    def rows(self, experiment: str = "Default", **tags: str) -> list[dict[str, Any]]:
        """Rows of the store, oldest first; metrics: key -> [(step, value), ...] in the order of steps."""
        found = []
        with sqlite3.connect(self.root / "mlflow.db") as db:
            where = "from runs r join experiments e using (experiment_id) where e.name = ? order by start_time, r.rowid"
            for run_id, name, status in db.execute(f"select run_uuid, r.name, status {where}", [experiment]).fetchall():
                row: dict[str, Any] = {"run_id": run_id, "name": name, "status": status, "metrics": {}}
                for table in ("tags", "params"):
                    row[table] = dict(db.execute(f"select key, value from {table} where run_uuid = ?", [run_id]))
                for key, *point in db.execute("select key, step, value from metrics where run_uuid = ? order by step", [run_id]):
                    row["metrics"].setdefault(key, []).append(tuple(point))
                if tags.items() <= row["tags"].items():
                    found.append(row)
        return found


@dataclass(frozen=True)
class Started:
    """A forked stage that is under way."""

    warm: "Warm"
    pid: int
    argv: list[str]
    out: Path
    err: Path

    def until(self, condition: Callable[[str], bool]) -> None:
        """Wait until the condition holds for what it printed on stderr."""
        until(lambda: condition(self.err.read_text()), self.err.read_text)

    def wait(self) -> subprocess.CompletedProcess[str]:
        if hasattr(os, "pidfd_open"):  # no other way to wait for a process that is no child of this one, but to ask again and again
            ended = os.pidfd_open(self.pid)
            poll = select.poll()  # not `select`, which takes no descriptor above 1023
            poll.register(ended, select.POLLIN)
            poll.poll()
            os.close(ended)
        while (code := self.warm.ask({"ended": self.pid})) is None:
            time.sleep(0.01)
        return subprocess.CompletedProcess(self.argv, code, self.out.read_text(), self.err.read_text())


MLFLOW = Path(sys.executable).with_name("mlflow")


class Warm:
    """The parent, and what to ask it. All workers of a test run have one: the first starts it, and it ends with the last."""

    def __init__(self, folder: Path, shared: Path) -> None:
        """Args:
        folder: Where what is printed is kept.
        shared: The workers' folder, where the parent's address stands.
        """
        self.folder, self.started, self.lock = folder, 0, threading.Lock()
        with FileLock(shared / "warm.lock"):
            address = shared / "warm.address"
            try:
                self.link = _connected(address.read_text())
            except OSError:  # there is none yet, or it ended with a worker that was done early
                address.write_text(_begun())
                self.link = _connected(address.read_text())
            self.empty_store = Path(address.read_text()).with_name("empty.db")  # once it has answered
        self.answers = self.link.makefile()

    def ask(self, what: Mapping[str, Any]) -> int | None:
        with self.lock:
            self.link.sendall(json.dumps(what).encode() + b"\n")
            return json.loads(self.answers.readline())  # type: ignore[no-any-return]

    def close(self) -> None:
        self.answers.close()
        self.link.close()

    def start(
        self, argv: list[str], cwd: Path, environment: Mapping[str, str], path: Sequence[Path] = (), again: Sequence[str] = ("lethe",)
    ) -> Started:
        """Fork `python <argv>`; with `path`, folders, it imports the packages `again` itself, lethe from there."""
        with self.lock:
            self.started += 1
            out, err = (self.folder / f"{self.started}.{name}" for name in ("out", "err"))
        out.touch()
        err.touch()
        files = {"out": str(out), "err": str(err), "path": [str(folder) for folder in path], "again": list(again)}
        pid = self.ask({"argv": argv, "cwd": str(cwd), "environment": dict(environment), **files})
        assert pid
        return Started(self, pid, argv, out, err)

    def mlflow(self, words: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Started:
        """Fork `mlflow <words>`: it has MLflow's libraries, and imports MLflow, which asks our plugin, itself."""
        self.ask({"modules": ["IPython.display", "mlflow.cli", "mlflow.projects"]})
        return self.fresh([str(MLFLOW), *words], cwd, environment)

    def fresh(self, argv: list[str], cwd: Path, environment: Mapping[str, str]) -> Started:
        """Fork `python <argv>`, which imports lethe and MLflow itself."""
        return self.start(argv, cwd, environment, [Path(argv[0]).parent], ("lethe", "mlflow"))


def _connected(address: str) -> socket.socket:
    link = socket.socket(socket.AF_UNIX)
    try:
        link.connect(address)
    except OSError:
        link.close()
        raise
    return link


def _begun() -> str:
    """Start a parent; its address. It listens before it has imported anything, so that nobody waits for that who need not."""
    # Huge pages: a step's tensors, and a child's copy of what it changes, take a tenth of the page faults
    environment = clean() | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    return subprocess.run([sys.executable, __file__], env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def write_params(path: Path, real: Path = ROOT / "params.yaml") -> None:
    """The real params.yaml with its section `demo` and LESS laid over it, but for the demo's variants, and FEW over every method."""
    from ruamel.yaml import YAML

    def lay(over: Mapping[str, Any], tree: dict[str, Any]) -> None:
        for key, value in over.items():
            if isinstance(value, dict):
                lay(value, tree.get(key, {}))
            else:
                tree[key] = value

    yaml = YAML()
    said = yaml.load(real.read_text())
    lay(said["demo"], said)
    lay(LESS, said)
    for own in said["methods"].values():
        own.update({word: value for word, value in FEW.items() if word in own})
    yaml.dump(said, path)


def copied(built: Path, root: Path, warm: Warm, *without: str) -> Project:
    shutil.copytree(built, root, ignore=shutil.ignore_patterns(".lethe", *without))
    with sqlite3.connect(root / "mlflow.db") as db:
        db.execute("update experiments set artifact_location = ?", [str(root / "mlruns" / "0")])
    return Project(root, warm)


# --- a database -----------------------------------------------------------------------------------------------------


def tool() -> Any:
    """tools/postgres.py"""
    spec = importlib.util.spec_from_file_location("postgres", ROOT / "tools" / "postgres.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- the parent -----------------------------------------------------------------------------------------------------

ROOMS = (
    "cli.main",
    "cli.stages",
    "data.digits",
    "pipeline.bank_training",
    "pipeline.dry_run",
    "pipeline.evaluate",
    "pipeline.shadow_models",
    "pipeline.stages",
    "pipeline.unlearn",
    "plots.report_figures",
    "plots.training_curves",
    "reporting.card_page",
    "reporting.report",
    "tracking.run_log",
)
LIBRARIES = (
    "alembic.command",
    "jinja2",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "optuna",
    "pandas",
    "pandas.io.formats.csvs",
    "pyarrow.pandas_compat",
    "scipy.stats",
    "sklearn.datasets",
    "sklearn.linear_model",
    "sklearn.model_selection",
    "sklearn.svm",
    "sqlalchemy.dialects.sqlite",
    "torch._dynamo",
)


def first_times(database: Path) -> None:
    """What takes a process long at its first time and, done here, no time in the stages: half of what a small one computes.

    Args:
        database: Where a store without rows is left, whose tables take MLflow seconds.
    """
    import mlflow.store.db.utils as tables
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from lethe._util import plugins

    for group in ("lethe.methods", "lethe.measures", "lethe.data_sources"):
        plugins.installed(group)
    revision = tables._get_latest_schema_revision()  # from 67 modules
    tables._get_latest_schema_revision = lambda: revision
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{folder}/rows.db"
        client = MlflowClient(store)
        client.search_experiments()
        shutil.copy(f"{folder}/rows.db", database)
        run = client.create_run("0", tags={"a": "b"}).info.run_id
        client.log_batch(run, [Metric("a", 1.0, 1, 1)], [Param("a", "b")], [RunTag("a", "c")])
        client.search_runs(["0"], "tags.`a` = 'c' and attributes.status = 'RUNNING'", order_by=["attributes.start_time DESC"])
        client.set_terminated(run)
        SqlAlchemyStore._engine_map.pop(store).dispose()
    torch, numpy, svm = sys.modules["torch"], sys.modules["numpy"], sys.modules["sklearn.svm"]
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3, stride=2), torch.nn.BatchNorm2d(16), torch.nn.ReLU())
    with torch.no_grad():
        net(torch.zeros(8, 3, 32, 32))
    svm.SVC().fit(numpy.eye(4), [0, 1, 0, 1])


def serve(listening: socket.socket) -> None:
    """A request is a line: modules to import, a stage to start (the answer is its pid), or a pid (its exit code, null while it runs).

    It ends when nobody is connected any more."""
    sys.path[0] = str(ROOT / "src")
    for name in ROOMS:
        importlib.import_module(f"lethe.{name}")
    os.environ.update(sys.modules["lethe.tracking.mlflow_store"].QUIET)
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    load = sys.modules["lethe.config.loader"].load  # slow the first time; it parses a text once
    load()
    with tempfile.TemporaryDirectory() as folder:
        params = Path(folder) / "params.yaml"
        write_params(params)
        load(params=params)
    first_times(Path(listening.getsockname()).with_name("empty.db"))
    gc.freeze()  # else the first collection in every child copies a gigabyte
    links: dict[socket.socket, Any] = {}
    selector = selectors.DefaultSelector()
    selector.register(listening, selectors.EVENT_READ)
    patience: float | None = NET
    while ready := selector.select(patience):
        for key, _ in ready:
            if key.fileobj is listening:
                link = listening.accept()[0]
                links[link] = link.makefile()
                selector.register(link, selectors.EVENT_READ)
                continue
            link = cast(socket.socket, key.fileobj)
            if line := links[link].readline():
                link.sendall(json.dumps(_answered(json.loads(line), [listening, *links])).encode() + b"\n")
            else:
                selector.unregister(link)
                links.pop(link).close()
                link.close()
        patience = None
        if not links:  # whoever found the address before it is gone is still served
            shutil.rmtree(Path(listening.getsockname()).parent, ignore_errors=True)
            patience = 0
    os._exit(0)


def _answered(asked: dict[str, Any], ours: list[socket.socket]) -> int | None:
    if "modules" in asked:
        for name in asked["modules"]:
            importlib.import_module(name)
        gc.freeze()
        return 0
    if "ended" in asked:
        pid, status = os.waitpid(asked["ended"], os.WNOHANG)
        return os.waitstatus_to_exitcode(status) if pid else None
    pid = os.fork()
    if pid == 0:
        for each in ours:  # or this process, which may outlive the parent, would keep the address
            os.close(each.fileno())
        play(**asked)
    return pid


def play(argv: list[str], cwd: str, environment: dict[str, str], out: str, err: str, path: list[str], again: list[str]) -> None:
    """In the child: what `python <argv>` does, to its exit."""
    for number, name in enumerate((os.devnull, out, err)):
        os.dup2(os.open(name, os.O_RDWR), number)
    os.environ.clear()
    os.environ.update(environment)
    tempfile.tempdir = None  # TMPDIR may be another one
    os.chdir(cwd)
    sys.argv = argv
    faulthandler.enable()  # where an interpreter crashed stands on stderr
    if path:
        for name in [name for name in sys.modules if name.partition(".")[0] in again]:
            del sys.modules[name]
        sys.path[:1] = path
    if environment.get("CURVES") == "none":  # drawing them takes longer than the rest of a small run
        importlib.import_module("lethe.plots.training_curves").accuracy_curves = lambda *_: b""  # type: ignore[attr-defined]
    if sys.platform == "linux" and any("workers" in word for word in argv):
        spawn_by_fork()
    if "HIT" in environment:
        hit(**json.loads(environment["HIT"]))
    if "MOST_MEMORY" in environment:  # more than what the parent has already
        used = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData")).split()[1]) * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (used + int(environment["MOST_MEMORY"]),) * 2)
    if "LARGEST" in environment:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(environment["LARGEST"]),) * 2)
    if "LIMITS" in environment:
        limit(json.loads(environment["LIMITS"]))
    if "CLOCK_BACK" in environment:
        set_back(float(environment["CLOCK_BACK"]))
    leave(lambda: runpy.run_path(argv[0], run_name="__main__"))


def limit(limits: dict[str, int]) -> None:
    user = limits.pop("USER", None)
    for name, most in limits.items():
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
    if user is not None:
        os.environ["HOME"] = "/nonexistent"
        libc = ctypes.CDLL(None)
        libc.prctl(8, 1)  # PR_SET_KEEPCAPS: it may read what root may, as this Python's own files
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        read = 1 << 2  # CAP_DAC_READ_SEARCH, and no other
        assert libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(read, read)) == 0


def set_back(seconds: float) -> None:
    real, reads = time.time, itertools.count()
    time.time = lambda: real() - seconds * next(reads)
    time.time_ns = lambda: int(time.time() * 1e9)


def leave(program: Callable[[], object]) -> NoReturn:
    """Run it and end the process as an interpreter would."""
    code: Any = 0
    try:
        program()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(code or 0)  # the rest of an interpreter's end, object by object, takes 4 seconds


def spawn_by_fork() -> None:
    """Processes that multiprocessing spawns are forked as this one is now, before the stage has begun, and not imported from nothing.

    A child of this process forks them; they become this process's children, as spawned ones are, for it adopts orphans."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
    if os.fork() == 0:
        ours.close()
        _nursery(theirs)
    theirs.close()
    exec_spawn = multiprocessing.util.spawnv_passfds  # type: ignore[attr-defined]

    def spawn(path: bytes, words: list[str], fds: Sequence[int]) -> int:
        if "--multiprocessing-fork" not in words:
            return exec_spawn(path, words, fds)  # type: ignore[no-any-return]
        numbers = sorted(map(int, fds))
        asked = {"code": words[words.index("-c") + 1], "cwd": str(Path.cwd()), "environment": dict(os.environ), "numbers": numbers}
        socket.send_fds(ours, [json.dumps(asked).encode()], numbers)
        return int(ours.recv(20))

    multiprocessing.util.spawnv_passfds = spawn  # type: ignore[assignment]


def _nursery(link: socket.socket) -> NoReturn:
    while True:
        message, fds, _, _ = socket.recv_fds(link, 1 << 20, 64)
        if not message:
            os._exit(0)
        told, telling = os.pipe()
        if (between := os.fork()) == 0:
            if (pid := os.fork()) == 0:
                for each in (told, telling, link.fileno()):
                    os.close(each)
                _spawned(fds=fds, **json.loads(message))
            os.write(telling, str(pid).encode())
            os._exit(0)
        os.waitpid(between, 0)
        link.send(os.read(told, 20))
        for each in (*fds, told, telling):
            os.close(each)


def _spawned(code: str, cwd: str, environment: dict[str, str], numbers: list[int], fds: list[int]) -> NoReturn:
    """In the process that was to be spawned: its descriptors have the numbers that its command line names."""
    ctypes.CDLL(None).prctl(15, b"spawned")  # PR_SET_NAME
    apart = [fcntl.fcntl(fd, fcntl.F_DUPFD, 500) for fd in fds]
    for fd in fds:
        os.close(fd)
    for fd, number in zip(apart, numbers, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["-c", "--multiprocessing-fork"]
    leave(lambda: exec(code, {"__name__": "__main__"}))


def hit(call: str, times: int, number: int, file: str | None) -> None:
    module, _, path = call.partition(":")
    owner: Any = importlib.import_module(module)
    *owners, name = path.split(".")
    for part in owners:
        owner = getattr(owner, part)
    real, seen = getattr(owner, name), 0

    def counting(self: Any, *arguments: Any, **named: Any) -> Any:
        nonlocal seen
        seen += file is None or Path(arguments[0]).name == file
        if seen == times:
            seen += 1
            os.kill(os.getpid(), number)
        return real(self, *arguments, **named)

    setattr(owner, name, counting)


def main() -> None:
    """Print the address and serve in the background, apart from whoever started it."""
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{tempfile.mkdtemp()}/warm")  # such a path has at most 107 bytes
        listening.listen()
        print(listening.getsockname(), flush=True)
        if os.fork() == 0:
            os.setsid()
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            serve(listening)


if __name__ == "__main__":
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a stage ends when its terminal is closed, also if the tests were started by nohup
    main()
