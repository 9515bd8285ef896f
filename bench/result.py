"""Measure the processor time from a command to its first optimizer step, to its table of results and to its end, at two commits by turns.

    python bench/result.py <commit> [<other commit>] [--repeats 5] [--standing] [--write FILE] -- --method model_2 [any key ...]

Without another commit the second side is the working tree. Each repeat is `python src/unlearn.py` twice on each side, by turns: in a fresh
workspace, and in that workspace without the method's own files, where original and retrained model stand. With --standing the first is left
out: each side's references are made and read once, which is not timed. Seconds are user and system time of the process, so another process
on the machine changes them little; the peak is that of its resident memory. What of its epochs was evaluation is by the clock. Linux only.
"""

import argparse
import contextlib
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from compare import tree

FIRST_STEP, TABLE = "first step", "table"
TICKS = os.sysconf("SC_CLK_TCK")
Times = dict[str, float]


def processor_seconds(pid: int) -> float:
    """User and system time of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def marked(lines: Sequence[str]) -> str:
    """What comes after, or with, the last of the lines that were printed so far; "": nothing that is timed.

    The first step comes after the start was measured, and where the original is read after the first epoch, and the start with it, after
    the header above it."""
    *before, line = lines
    if line.startswith("percent "):
        return "" if any(one.startswith("percent ") for one in before) else TABLE
    headers = [at for at, one in enumerate(lines) if one.startswith("phase ")]
    if len(headers) != 1:
        return ""
    measured = any(one.startswith("start ") or "into a logits table" in one for one in before[headers[0] :])
    return FIRST_STEP if line.startswith("phase ") or (line.startswith("start ") and not measured) else ""


def peak(pid: int) -> float:
    """Peak of a running process's resident memory so far, in GiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def environment(workspace: Path) -> dict[str, str]:
    """Of a command: a store of the workspace's own."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DVC_ROOT")}
    return env | {"MLFLOW_TRACKING_URI": f"sqlite:///{workspace}.db", "PYTHONUNBUFFERED": "1"}


def evaluating(workspace: Path) -> float:
    """Share of evaluation in the time of the newest run's epochs, in percent."""
    with contextlib.closing(sqlite3.connect(f"{workspace}.db")) as store:
        asked = """SELECT key, SUM(value) FROM metrics WHERE key IN ('epoch_seconds', 'evaluate_seconds') AND step > 0
                   AND run_uuid = (
                       SELECT run_uuid FROM metrics JOIN runs USING (run_uuid) WHERE key = 'epoch_seconds' ORDER BY start_time DESC LIMIT 1
                   ) GROUP BY key"""
        seconds = dict(store.execute(asked))
    return 100 * seconds["evaluate_seconds"] / sum(seconds.values())


def references(side: Path, workspace: Path, keys: list[str]) -> None:
    """Make original and retrained model, and read them into their tables."""
    for words in (["pretrain"], ["retrain"], ["evaluate", "--method", "original,retrained"]):
        others = [word for at, word in enumerate(keys) if "--method" not in (word, *keys[max(at - 1, 0) : at])]
        command = [sys.executable, f"src/{words[0]}.py", *words[1:], *others, "--run.workspace", str(workspace)]
        subprocess.run(command, cwd=side, env=environment(workspace), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run(side: Path, workspace: Path, keys: list[str]) -> Times:
    """Seconds of one command by what they led to, and its peak memory in GiB."""
    command = [sys.executable, "src/unlearn.py", *keys, "--run.workspace", str(workspace)]
    process = subprocess.Popen(command, cwd=side, env=environment(workspace), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    times, lines = Times(), []
    for line in process.stdout:
        lines.append(line)
        if mark := marked(lines):
            times |= {mark: processor_seconds(process.pid), f"peak to {mark}": peak(process.pid)}
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: {side}: {''.join(lines[-5:])}")
    return times | {"end": used.ru_utime + used.ru_stime, "peak to end": used.ru_maxrss / 2**20, "evaluation": evaluating(workspace)}


def without_method(workspace: Path, method: str) -> None:
    """Delete a method's files."""
    for kind in ("models", "epochs", "logits", "scores"):
        for path in (workspace / kind).glob(f"{method}.*"):
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("commits", nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--standing", action="store_true")
    parser.add_argument("--write", type=Path)
    own, keys = (sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]) if "--" in sys.argv else (sys.argv[1:], [])
    asked = parser.parse_args(own)
    first, second = (*asked.commits, None)[:2]
    method = keys[keys.index("--method") + 1] if "--method" in keys else "hybrid_4"
    found: dict[str, dict[str, list[Times]]] = defaultdict(lambda: defaultdict(list))
    with tree(first) as before, tree(second) as after, tempfile.TemporaryDirectory() as folder:
        sides = {Path(folder) / "before": before, Path(folder) / "after": after}
        for workspace, side in sides.items() if asked.standing else ():
            references(side, workspace, keys)
        for _ in range(asked.repeats):
            for workspace, side in sides.items():
                if not asked.standing:
                    found["fresh"][workspace.name].append(run(side, workspace, keys))
                    without_method(workspace, method)
                found["standing"][workspace.name].append(run(side, workspace, keys))
                without_method(workspace, method)
                if not asked.standing:
                    shutil.rmtree(workspace)
    print("| workspace | to | before | after | ratio |\n|---|---|---|---|---|")
    marks = [mark for to in (FIRST_STEP, TABLE, "end") for mark in (to, f"peak to {to}")]
    for kind, by_side in found.items():
        for mark in (*marks, "evaluation"):
            old, new = (statistics.median(times[mark] for times in by_side[name]) for name in ("before", "after"))
            unit = "GiB" if mark.startswith("peak") else "%" if mark == "evaluation" else "s"
            print(f"| {kind} | {mark} | {old:.2f} {unit} | {new:.2f} {unit} | {new / old:.2f} |")
    if asked.write:
        asked.write.write_text(json.dumps({"keys": keys, "seconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
