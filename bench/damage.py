"""Damage every file of a workspace in every way, one at a time, and count how often that is noticed.

    python bench/damage.py [--commands]

The workspace is made here: digits, an original, a retrained model, a result with scores, card and report, a reference bank of two, and
records that a server did not take. A damage is right if `verify` names the file as damaged with a command or an action, and what reads the
file refuses it in one line. With --commands, also the command that reads the file is run (evaluate, report or card): it must end with 1 or
2 and one line, or give what it gave before.
"""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import small_workspace

from lethe._util.errors import UserError
from lethe._util.files import read_json
from lethe.cli.main import main as command
from lethe.config.loader import load
from lethe.data.splits import SPLITS
from lethe.engine import epoch_table
from lethe.models import checkpoint
from lethe.pipeline import verify
from lethe.reporting import card_seal
from lethe.workspace import repair, scores, settings
from lethe.workspace.layout import Layout
from lethe.workspace.prepare import load_existing

OWN = ("--run.workspace", "ws")
METHOD = ("--method", "model_1", "--methods.model_1.epochs", "1", "--methods.model_1.batch_size", "16", "--run.log_model", "none")
NOT_READ = (".lock", ".pid", ".md", ".html", ".png", ".gitignore", "secret")  # pages, and the secret: another one is another workspace's
THEIRS = ("artifacts", "models")  # in an outbox: files as MLflow gets them, of any kind


def flipped(content: bytes) -> bytes:
    """One bit in the middle."""
    at = len(content) // 2
    return content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :]


def digit(content: bytes) -> bytes:
    """Another digit: the last one of a text, so that it stays well-formed."""
    at = max(content.rfind(b"%d" % number) for number in range(10))
    return content if at < 0 else content[:at] + (b"4" if content[at : at + 1] != b"4" else b"7") + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit": flipped,
    "a digit": digit,
    "cut in half": lambda content: content[: len(content) // 2],
    "without its last line": lambda content: content[: content.rstrip(b"\n").rfind(b"\n") + 1],
    "empty": lambda content: b"",
    "zeros in the middle": lambda content: content[: len(content) // 2] + bytes(16) + content[len(content) // 2 + 16 :],
    "bytes at the end": lambda content: content + b"17\n",
}


def ran(verb: str, *words: str) -> tuple[int, str, str]:
    """Run a stage in a process of its own, which has everything imported; its exit code, and what it printed."""
    with tempfile.TemporaryDirectory() as folder:
        pid = os.fork()
        if not pid:
            for number, name in ((1, "out"), (2, "err")):
                with Path(folder, name).open("w") as file:
                    os.dup2(file.fileno(), number)
            os._exit(command(verb, [*words, *OWN]))
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        return code, Path(folder, "out").read_text(), Path(folder, "err").read_text()


def prepare(folder: Path) -> None:
    """Make the workspace."""
    steps = [
        ("unlearn", *small_workspace.KEYS, *METHOD),
        ("bank", "--pretrain.seeds", "1", "--retrain.seeds", "3"),
        ("evaluate", "--method", "all"),
        ("report", "card", *METHOD[:2]),
    ]
    for step in (*steps, ("report",)):
        code, _, said = ran(*step)
        if code:
            raise SystemExit(f"{step[0]} ended with {code}: {said[-400:]}")
    os.environ["MLFLOW_TRACKING_URI"] = "http://127.0.0.1:9"
    ran("unlearn", "--method", "model_4", "--methods.model_4.epochs", "1", "--methods.model_4.batch_size", "16")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"


def files(home: Path) -> Iterator[Path]:
    for path in sorted(home.rglob("*")):
        theirs = "outbox" in path.parts and any(part in THEIRS for part in path.parts)
        if path.is_file() and (theirs or not path.name.endswith(NOT_READ)):
            yield path


def named(home: Path, path: Path) -> str:
    """How verify names a damaged file; "" if it does not."""
    config = load([*OWN, *METHOD[:2]], settings=None)
    with contextlib.suppress(Exception):
        config = load([*OWN, *METHOD[:2]], settings=settings.layer)
    found = [*verify.inspect(Layout(home)), *verify.of_tables(config, recompute=False)]
    reason = next((one.reason for one in found if one.path == path and one.kind == "damaged"), "")
    return reason and f"{reason}; {repair.remedy(path, home)}"


def refused(home: Path, path: Path) -> list[str]:
    """What is wrong with how a damaged file is read: taken as it is, or refused in other words than one line."""
    layout = Layout(home)
    readers: dict[Path, Callable[[Path], object]] = {
        layout.data: lambda path: load_existing(load([*OWN, *METHOD[:2]], settings=settings.layer)),
        layout.all_scores: scores.read,
        layout.epochs("-").parent: epoch_table.read_csv,
        layout.cards: card_seal.check,
        layout.settings: settings.layer,
    }
    read = next((read for place, read in readers.items() if path.is_relative_to(place)), None)
    read = {".json": read_json, ".safetensors": checkpoint.load}.get(path.suffix) if path.suffix != ".csv" and not read else read
    if read is None or path in (layout.manifest, layout.settings) or path.is_relative_to(layout.outbox):
        return []  # read by nothing, or by what goes on without it
    try:
        found = read(path)
    except UserError as error:
        return [] if "\n" not in str(error) else [f"{error}"]
    except Exception as error:
        return [f"{type(error).__name__}: {error}"]
    altered = isinstance(found, tuple) and found[0] is False  # a card's seal says so
    unread = path.is_relative_to(layout.data) and path.name not in ("images.safetensors", *(f"{split}.csv" for split in SPLITS))
    return [] if altered or unread else ["read as it is"]


def reader(home: Path, path: Path) -> tuple[str, ...]:
    top = path.relative_to(home).parts[0]
    if top == "cards":
        return ("report", "card", "--list", "train/0")
    return (
        ("report",) if top in ("epochs", "report", "search") else ("report", "card") if top == "ledger.jsonl" else ("evaluate", *METHOD[:2])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", action="store_true")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="lethe-damage-"))
    os.environ |= {"MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db", "DVC_ROOT": str(folder)}
    shutil.copy(Path(__file__).parents[1] / "params.yaml", folder)
    os.chdir(folder)
    prepare(folder)
    home, kept = folder / "ws", folder / "kept"
    shutil.copytree(home, kept)
    tried, right = Counter[str](), Counter[str]()
    for path in files(home):
        relative, content = path.relative_to(home), path.read_bytes()
        kind = f"{relative.parts[0]}/*{path.suffix}" if len(relative.parts) > 1 else path.name
        kind = f".lethe/{relative.parts[1]}" if relative.parts[0] == ".lethe" else kind
        for what, damage in DAMAGES.items():
            if (damaged := damage(content)) == content:
                continue
            path.write_bytes(damaged)
            faults = ([] if named(home, path) else ["not named"]) + refused(home, path)
            if asked.commands:
                code, _, said = ran(*reader(home, path))
                if "Traceback" in said or (code and said.count("\n") > 3):
                    faults.append(f"{reader(home, path)[0]} ended with {code}: {said[-200:]}")
                elif not code and not same(home, kept, path):
                    faults.append(f"{reader(home, path)[0]} gave other numbers")
                shutil.rmtree(home)
                shutil.copytree(kept, home)
            path.write_bytes(content)
            tried[kind] += 1
            right[kind] += not faults
            if faults:
                print(f"WRONG: {relative}, {what}: {'; '.join(faults)}", file=sys.stderr)
    os.chdir(folder.parent)
    shutil.rmtree(folder)
    for kind, number in sorted(tried.items()):
        print(f"{kind:<28} {number:>4} tried {right[kind]:>4} right")
    print(f"{'all':<28} {tried.total():>4} tried {right.total():>4} right")


def same(home: Path, kept: Path, path: Path) -> bool:
    """Whether the scores are what they were."""
    scores = [one.relative_to(kept) for one in kept.glob("scores/**/*.json") if one != kept / path.relative_to(home)]
    return all((home / one).exists() and (home / one).read_bytes() == (kept / one).read_bytes() for one in scores)


if __name__ == "__main__":
    main()
