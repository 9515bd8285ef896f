"""Measure the processor time from a command to its first optimizer step, to its table of results and to its end, at two commits by turns.

    python bench/result.py <commit> [<other commit>] [--repeats 5] [--write FILE] -- --method model_2 --run.threads 1 [any key ...]

Without another commit the second side is the working tree. Each repeat is `python src/unlearn.py` twice on each side, by turns: in a fresh
workspace, and in that workspace without the method's own files, where original and retrained model stand. Seconds are user and system
time of the process, so another process on the machine changes them little; the peak is that of its resident memory. Linux only.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from compare import tree

MARKS = {"start ": "first step", "percent ": "table"}  # how the line begins that is printed just before, or with, what is timed
TICKS = os.sysconf("SC_CLK_TCK")
Times = dict[str, float]


def processor_seconds(pid: int) -> float:
    """User and system time of a running process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak(pid: int) -> float:
    """Peak of a running process's resident memory so far, in GiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**20


def run(side: Path, workspace: Path, keys: list[str]) -> Times:
    """Seconds of one command by what they led to, and its peak memory in GiB."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DVC_ROOT")}
    env |= {"MLFLOW_TRACKING_URI": f"sqlite:///{workspace}.db", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "src/unlearn.py", *keys, "--run.workspace", str(workspace)]
    process = subprocess.Popen(command, cwd=side, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout
    times, lines = Times(), []
    for line in process.stdout:
        lines.append(line)
        for start, mark in MARKS.items():
            if line.startswith(start) and mark not in times:
                times |= {mark: processor_seconds(process.pid), f"peak to {mark}": peak(process.pid)}
    _, status, used = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"error: {side}: {''.join(lines[-5:])}")
    return times | {"end": used.ru_utime + used.ru_stime, "peak to end": used.ru_maxrss / 2**20}


def without_method(workspace: Path, method: str) -> None:
    """Delete a method's files."""
    for kind in ("models", "epochs", "logits", "scores"):
        for path in (workspace / kind).glob(f"{method}.*"):
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("commits", nargs="+")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", type=Path)
    own, keys = (sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]) if "--" in sys.argv else (sys.argv[1:], [])
    asked = parser.parse_args(own)
    first, second = (*asked.commits, None)[:2]
    method = keys[keys.index("--method") + 1] if "--method" in keys else "hybrid_4"
    found: dict[str, dict[str, list[Times]]] = defaultdict(lambda: defaultdict(list))
    with tree(first) as before, tree(second) as after, tempfile.TemporaryDirectory() as folder:
        for _ in range(asked.repeats):
            for name, side in (("before", before), ("after", after)):
                workspace = Path(folder) / name
                found["fresh"][name].append(run(side, workspace, keys))
                without_method(workspace, method)
                found["standing"][name].append(run(side, workspace, keys))
                shutil.rmtree(workspace)
    print("| workspace | to | before | after | ratio |\n|---|---|---|---|---|")
    for workspace_, sides in found.items():
        for mark in (mark for to in (*MARKS.values(), "end") for mark in (to, f"peak to {to}")):
            old, new = (statistics.median(times[mark] for times in sides[name]) for name in ("before", "after"))
            unit = "GiB" if mark.startswith("peak") else "s"
            print(f"| {workspace_} | {mark} | {old:.2f} {unit} | {new:.2f} {unit} | {new / old:.2f} |")
    if asked.write:
        asked.write.write_text(json.dumps({"keys": keys, "seconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
