"""Faults of every kind, one after another: what happens to a command, how often it was tried, and how often everything was right then.

    python bench/faults.py [--kinds kills,signals] [--tries 100] [--seed 0] [--write results/faults/faults.json [--add]]

`make faults` runs all kinds. Every try starts from a copy of a small project (digits, 120 images, a network of some thousand weights, an
MLflow store), in processes that a parent forks which has imported everything. Right is, unless its kind says otherwise: the command ends
as documented, in one line and without a traceback; nothing is half-written; the same command then ends with 0, with results that are
equal, byte for byte, to those of a command to which nothing happened; in MLflow no run is RUNNING, none has a metric twice at a step, the
same runs are FINISHED, and no record is left unsent.
Full disks and read-only folders are mounts, and users are changed, so those kinds need root; they are left out for others.
"""

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import numpy as np
from fault_kinds import births, disks, kills, places, signals
from fault_kinds.scene import COMMANDS, Stage, commit

from support.project import Warm

ALL = tuple(name for name in COMMANDS if "workers" not in name)
PAIRED = ("prepare", "pretrain", "retrain", "unlearn", "seeds", "bank", "evaluate", "report", "card", "search", "erase")


@dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
        about: what happens, in words.
        one: makes one try at a command; yields what is wrong.
        names: the commands that it happens to, in turn.
        tries: in all, unless asked otherwise.
        root: whether it needs root.
    """

    about: str
    one: Callable[[Stage, str, np.random.Generator], Iterator[str]]
    names: Sequence[str]
    tries: int
    root: bool = False


KINDS: Mapping[str, Kind] = {
    "kills": Kind("killed at a random moment of every stage", kills.kill, [name for name in ALL if name != "search"], 165),
    "search": Kind("a search killed, then equal to the uninterrupted one", kills.kill, ["search"], 20),
    "workers": Kind("a worker of several killed", kills.worker, ["workers", "search_workers"], 10),
    "births": Kind("killed while its store is made: MLflow's, Optuna's", births.born, ["mlflow", "optuna"], 50),
    "disks": Kind("a disk that becomes full, also one that fills and empties", disks.full, ALL, 100, root=True),
    "signals": Kind("SIGHUP, SIGTERM, SIGINT at a random moment", signals.stopped, ALL, 48),
    "first second": Kind(
        "a signal in an interpreter's first second", signals.first_second, ["unlearn", "prepare", "search", "evaluate"], 12
    ),
    "read-only": Kind("the workspace, or a folder of it, is read-only", places.read_only, ALL, 36, root=True),
    "another user": Kind("the workspace, or folders of it, belong to another user", places.of_another_user, ALL, 24, root=True),
    "limits": Kind("few open files, or few processes", places.limits, ALL, 36, root=True),
    "clock": Kind("a clock that is set back, files from the future", places.clock, ALL, 24),
    "pairs": Kind(
        "two commands at once in one workspace", places.pair, ["+".join(pair) for pair in combinations_with_replacement(PAIRED, 2)], 66
    ),
}


def run(kind: Kind, stage: Stage, tries: int, seed: int, name: str) -> tuple[int, list[str]]:
    """Make the tries of a kind; the number that was right, and what was wrong."""
    draw, right, found = np.random.default_rng(seed), 0, list[str]()
    names = [kind.names[n] for n in (draw.permutation(len(kind.names)) if tries < len(kind.names) else range(len(kind.names)))]
    for n in range(tries):
        command = names[n % len(names)]
        faults = [f"{command}: {fault}" for fault in kind.one(stage, command, draw)]
        right += not faults
        found += faults
        print(f"{name} {n + 1} of {tries}, {command}: {'; '.join(faults) or 'right'}", file=sys.stderr, flush=True)
    return right, found


PAGE = """# Faults

```console
$ make faults
```

{right} of {tried} tries were right. A try starts from a copy of a small project (digits, 120 images, a network of some thousand
weights, an MLflow store) and runs a stage in which the fault happens. It is right if the command ends as documented, in one line and
without a traceback, nothing is half-written (what a kill leaves is removed by whoever writes the same file next), and the same
command, given again, ends with 0 and with results that are equal, byte for byte, to those of a run without the fault; in MLflow no
run is RUNNING, none has a metric twice at a step, the same runs are FINISHED, and no record is unsent. For two commands at once, and
in another user's workspace, results are not compared. Tries are made in parts, by other seeds and at other commits (those of the table):
`python bench/faults.py --kinds kills --tries 30 --seed 5 --write results/faults/faults.json --add`; `make faults` makes all kinds anew.
Full disks, read-only folders, other users and limits need root.

| Kind | What happens | Tried | Right | Seeds | Commits |
|---|---|---:|---:|---|---|
{rows}

`faults.json` has seeds, seconds and, of each try that was not right, what was wrong. Not in this table, but in the tests: an erasure
in depth (`bench/kills.py`), PostgreSQL and MLflow servers that are killed (`tests/integration/search/test_survival.py`,
`tests/integration/mlflow/test_team.py`), Ray's nodes (`tests/integration/ray/test_ray.py`), damaged files
(`tests/unit/util/test_integrity.py`).
{wrong}"""


def added(known: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """A kind's row with the tries of another run of it, by another seed or at another commit."""
    sums = {key: (known[key] or 0) + row[key] for key in ("tried", "right", "seconds")}
    lists = {key: ", ".join(dict.fromkeys(f"{known[key]}, {row[key]}".split(", "))) for key in ("seed", "commit")}
    return {**row, **sums, **lists, "wrong": [*known["wrong"], *row["wrong"]]}


def page(table: Mapping[str, Mapping[str, Any]]) -> str:
    """The results page of a table."""
    rows = [
        f"| {name} | {row['about']} | {row['tried']} | {row['right']} | {row['seed']} | {row['commit']} |" for name, row in table.items()
    ]
    wrong = [f"- {name}, {fault}" for name, row in table.items() for fault in row["wrong"]]
    tried, right = (sum(row[key] for row in table.values()) for key in ("tried", "right"))
    listed = "\n".join(["", "What was wrong:", "", *wrong, ""]) if wrong else ""
    return PAGE.format(tried=tried, right=right, rows="\n".join(rows), wrong=listed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", default=",".join(KINDS), help="of these, separated by commas: %(default)s")
    parser.add_argument("--tries", type=int, help="of each kind [those of the table in results/faults]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path, help="a JSON file; kinds that are not asked for are kept in it")
    parser.add_argument("--add", action="store_true", help="add to the counts in that file, by a seed that is not in it yet")
    asked = parser.parse_args()
    table = json.loads(asked.write.read_text()) if asked.write and asked.write.exists() else {}
    for name in asked.kinds.split(","):
        if asked.add and name in table and str(asked.seed) in str(table[name]["seed"]).split(", "):
            parser.error(f"--seed is {asked.seed}; {asked.write} has tries of {name} by it already")
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts what is in the background with Ctrl-C ignored
    folder = Path(tempfile.mkdtemp(prefix="lethe-faults-"))
    (folder / "said").mkdir()
    warm = Warm(folder / "said", folder)
    stage = Stage(folder, warm)
    try:
        for name in asked.kinds.split(","):
            kind = KINDS[name]
            if kind.root and os.geteuid():
                print(f"{name}: needs root, left out", file=sys.stderr)
                continue
            tries, began = asked.tries or kind.tries, time.monotonic()
            right, found = run(kind, stage, tries, asked.seed, name)
            seconds = round(time.monotonic() - began)
            row = {"about": kind.about, "tried": tries, "right": right, "seconds": seconds, "seed": asked.seed, "commit": commit()}
            row |= {"wrong": found}
            table[name] = added(table[name], row) if asked.add and name in table else row
            print(f"| {name} | {kind.about} | {tries} | {right} |", flush=True)
            if asked.write:
                asked.write.parent.mkdir(parents=True, exist_ok=True)
                asked.write.write_text(json.dumps(table, indent=1) + "\n")
                asked.write.with_name("README.md").write_text(page(table))
    finally:
        warm.close()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
