"""A small project in a state that a try starts from, and what must be true of it when the try is over."""

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]

from support.project import Project, Warm, write_params  # noqa: E402

KEPT = ("models", "epochs", "logits", "scores", "bank", "search", "data/splits")  # results, of which equal ones are equal bytes
METHOD = ("--method", "hybrid_3", "--run.log_model", "safetensors")
SEEDS = ("--method", "model_4", "--run.seeds", "2")
TRIALS = ("--search.prune", "false", "--search.trials", "3", "--search.fresh_seeds", "1")
SPACE = ("--search.spaces.hybrid_4.epochs.low", "2", "--search.spaces.hybrid_4.epochs.high", "4")


@dataclass(frozen=True)
class Command:
    """A command line, and the state of the project that it starts from.

    Attributes:
        verb: the stage.
        words: after it.
        after: name of that state.
    """

    verb: str
    words: tuple[str, ...] = ()
    after: str = "references"

    def __str__(self) -> str:
        return " ".join([self.verb, *self.words])


COMMANDS: Mapping[str, Command] = {
    "prepare": Command("prepare", (), "bare"),
    "pretrain": Command("pretrain", (), "data"),
    "retrain": Command("retrain", (), "original"),
    "unlearn": Command("unlearn", METHOD),
    "seeds": Command("unlearn", SEEDS),
    "everything": Command("unlearn", METHOD, "bare"),
    "bank": Command("bank", ("--retrain.seeds", "2")),
    "evaluate": Command("evaluate", METHOD[:2], "result"),
    "report": Command("report", (), "result"),
    "card": Command("report", ("card", *METHOD[:2]), "result"),
    "search": Command("search", (*TRIALS, *SPACE)),
    "workers": Command("unlearn", (*SEEDS, "--run.workers", "2")),
    "search_workers": Command("search", (*TRIALS, *SPACE, "--search.workers", "2")),
    "erase": Command("erase", (*METHOD[:2], "--yes"), "result"),
}
STATES: Mapping[str, tuple[str, Sequence[Command]]] = {  # name -> the state before, and what leads from there
    "data": ("bare", [Command("prepare")]),
    "original": ("data", [Command("pretrain")]),
    "references": ("original", [Command("retrain")]),
    "result": ("references", [Command("unlearn", METHOD)]),
}


@dataclass(frozen=True)
class Uninterrupted:
    """What a command does when nothing happens to it.

    Attributes:
        seconds: it takes.
        files: path -> bytes of the results that are the same every time.
        finished: names of its finished MLflow runs.
        grows: bytes by which the project is larger afterwards.
    """

    seconds: float
    files: Mapping[str, bytes]
    finished: frozenset[str]
    grows: int


@dataclass
class Stage:
    """The folder in which all tries happen, one after another, and the states that it is set up in."""

    folder: Path
    warm: Warm
    _whole: dict[Command, Uninterrupted] = field(default_factory=dict)

    @property
    def project(self) -> Project:
        return Project(self.disk / "live", self.warm)

    @property
    def disk(self) -> Path:
        """Where the project is: a folder, on which a disk of any size can be mounted."""
        return self.folder / "disk"

    def set_up(self, state: str) -> Project:
        """Put the project into a state, which is made the first time."""
        saved, live = self.folder / "saved" / state, self.project.root
        if not saved.exists():
            self._make(state, saved)
        shutil.rmtree(live, ignore_errors=True)
        shutil.copytree(saved, live)
        return self.project

    def _make(self, state: str, saved: Path) -> None:
        if state == "bare":
            saved.mkdir(parents=True)
            write_params(saved / "params.yaml")
            self.warm.ask({"modules": []})  # once it answers, it has made the store
            shutil.copy(self.warm.empty_store, saved / "mlflow.db")
            with closing(sqlite3.connect(saved / "mlflow.db")) as db, db:
                db.execute("update experiments set artifact_location = ?", [str(self.project.root / "mlruns" / "0")])
            return
        before, commands = STATES[state]
        project = self.set_up(before)
        for command in commands:
            project.ran(command.verb, *command.words)
        shutil.copytree(project.root, saved)

    def uninterrupted(self, command: Command) -> Uninterrupted:
        """Run a command twice, to know what is the same every time."""
        if command not in self._whole:
            made = []
            for _ in range(2):
                project = self.set_up(command.after)
                before = _size(project.root)
                began = time.monotonic()
                project.ran(command.verb, *command.words)
                seconds = time.monotonic() - began
                made.append(results(project))
            same = {path: content for path, content in made[0].items() if made[1].get(path) == content}
            names = frozenset(row["name"] for row in project.rows() if row["status"] == "FINISHED")
            self._whole[command] = Uninterrupted(seconds, same, names, _size(project.root) - before)
        return self._whole[command]


def commit() -> str:
    """The commit that runs, and whether its files are changed."""
    words = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=7"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def _size(folder: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())


def results(project: Project) -> dict[str, bytes]:
    """Path -> bytes of the results of a project."""
    folders = [project.root / name for name in KEPT]
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(project.root)): path.read_bytes() for path in files}


def wrong(project: Project, expected: Uninterrupted | None) -> Iterator[str]:
    """What is not as if nothing had happened; None: it is not known what that would be."""
    if expected is None:
        yield from wrong_runs(project)
        return
    made = results(project)
    if other := [path for path, content in expected.files.items() if made.get(path) != content]:
        yield f"differs from the uninterrupted one: {', '.join(other[:3])}"
    yield from wrong_runs(project)
    names = {row["name"] for row in project.rows() if row["status"] == "FINISHED"}
    if missing := expected.finished - names:
        yield f"no finished run: {', '.join(sorted(missing))}"


def wrong_search(project: Project, expected: Uninterrupted) -> Iterator[str]:
    """What is not right after a search by several workers, whose proposals depend on which trial ends first (docs/search.md)."""
    made = results(project)
    if missing := sorted(expected.files.keys() - made.keys()):
        yield f"not made: {', '.join(missing[:3])}"
    for path, content in expected.files.items():
        rows, wanted = made.get(path, b"").count(b"\n"), content.count(b"\n")
        if path.endswith("/trials.csv") and rows != wanted:
            yield f"{path} has {rows} lines in place of {wanted}"
    yield from wrong_runs(project)


def wrong_runs(project: Project) -> Iterator[str]:
    """What is wrong with the MLflow runs of a project in which no command runs."""
    if running := [row["name"] for row in project.rows() if row["status"] == "RUNNING"]:
        yield f"still RUNNING: {', '.join(running)}"
    with closing(sqlite3.connect(project.root / "mlflow.db")) as db:
        twice = db.execute(
            "select name, key, step from metrics join runs using (run_uuid) group by run_uuid, key, step having count(*) > 1"
        )
        if found := [f"{key} of {name} at step {step}" for name, key, step in twice]:
            yield f"{len(found)} metrics twice at one step: {found[0]}"
    if left := list(project.root.glob(".lethe/outbox/*/")):
        yield f"{len(left)} outboxes are left"


def last_words(said: str) -> str:
    """The last line on stderr; of an interpreter that crashed its error and where each thread was, as faulthandler has printed it."""
    if (at := said.find("Fatal Python error")) >= 0:
        lines = [line.strip() for line in said[at:].splitlines() if line and not line.startswith("Extension modules")]
        return " < ".join(lines[:60])
    return "".join(said.strip().splitlines()[-1:])


def traced(said: str) -> str:
    """Where a traceback on stderr comes from, and its error."""
    lines = said[said.rindex("Traceback") :].splitlines()
    places = [line.split('"')[1].rpartition("/")[2] + line.rpartition('"')[2] for line in lines if line.startswith('  File "')]
    error = next((line for line in lines[1:] if line and not line.startswith(" ")), "")
    return f"a traceback: {error[:160]} at {' < '.join(reversed(places[-4:]))}"


def half_written(project: Project) -> list[str]:
    """Temporary files, which only a kill may leave."""
    found = (path for path in project.root.rglob(".*") if path.is_file() and path.name != ".gitignore")
    return [str(path.relative_to(project.root)) for path in found]
