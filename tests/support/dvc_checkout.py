"""A Git and DVC repository with the tree's own files. Its `python`, `dvc` and `mlflow` are forked from the warm parent."""

import json
import os
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from lethe.recipes.paper_methods import PAPER_METHODS
from support.project import NET, ROOT, Warm, write_params

DVC = ROOT / "tests" / "support" / "dvc_main.py"
RUN = ["hybrid_3", "hybrid_4"]  # what the small pipeline runs of the ten
TAKEN = ("src", "search", ".dvc", ".dvcignore", ".gitignore", "dvc.yaml", "MLproject", "conda.yaml")

# It imports little: a sketched pipeline is a hundred of them
PYTHON = """#!{python} -SE
import os, sys
program, how = os.path.basename(sys.argv[0]), os.environ.get("STAGES", "forked")
stage = os.path.basename(sys.argv[1]).partition(".")[0] if program == "python" else program
if program == "python" and (how == "real" or stage == "fingerprint"):
    os.execv({python!r}, [{python!r}, *sys.argv[1:]])
if program == "python" and how == "sketched" and stage != "prepare":
    name = {{"pretrain": "original", "retrain": "retrained"}}.get(stage) or "".join(sys.argv[3:4])
    for kind in {{"evaluate": ("logits", "scores", "metrics"), "report": ("report",), "bank": ("bank",)}}.get(stage, ("models", "epochs")):
        path = kind + "/" + name + {{"scores": ".json", "metrics": ".json", "epochs": ".csv"}}.get(kind, ".safetensors")
        os.makedirs(kind, exist_ok=True)
        with open(path, "w") as file:
            file.write(os.urandom(16).hex())
    sys.exit()
import json, socket
link = socket.socket(socket.AF_UNIX)
link.connect({address!r})
link.sendall(json.dumps([program, sys.argv[1:], os.getcwd(), dict(os.environ)]).encode() + b"\\n")
code, out, err = json.loads(link.makefile().read())
sys.stdout.write(out), sys.stderr.write(err)
sys.exit(code)
"""


@dataclass(frozen=True)
class Checkout:
    """A Git and DVC repository with the tree's own files, on a few digits."""

    root: Path
    bin: Path  # holds the `python` that stages are started with, a `dvc` and an `mlflow`

    def environment(self, **more: str) -> dict[str, str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PYTEST_", "DVC_"))}
        people = {f"GIT_{who}_{what}": "a@b.example" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        own = {f"DVC_{kind}": str(self.bin / kind) for kind in ("GLOBAL_CONFIG_DIR", "SYSTEM_CONFIG_DIR", "SITE_CACHE_DIR")}
        # A queue's worker is started as `dvc`: where that is not found, `dvc exp run --run-all` waits for ever
        path = os.pathsep.join([str(self.bin), str(Path(sys.executable).parent), clean["PATH"]])
        # An outer `mlflow run` has a row, which is no stage's
        return clean | people | own | {"PATH": path, "OMP_NUM_THREADS": "1", "MLFLOW_RUN_ID": "0" * 32} | more

    def call(self, *command: str, **more: str) -> str:
        """What it said, stderr too; it went well."""
        environment = self.environment(**more)
        program = shutil.which(command[0], path=environment["PATH"]) or command[0]
        done = subprocess.run([program, *command[1:]], cwd=self.root, env=environment, stdout=-1, stderr=-2, text=True, timeout=NET)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def git(self, *words: str) -> str:
        return self.call("git", *words)

    def dvc(self, *words: str, **more: str) -> str:
        return self.call("dvc", *words, **more)

    def repro(self, *words: str) -> set[str]:
        return stages(self.dvc("repro", *words))

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", "as it is")

    def read(self, *kinds: str) -> dict[str, bytes]:
        files = (path for kind in kinds for path in (self.root / kind).rglob("*") if path.is_file())
        return {str(path.relative_to(self.root)): path.read_bytes() for path in files}

    def edit(self, path: str, old: str, new: str) -> None:
        text = (self.root / path).read_text()
        assert old in text, old
        (self.root / path).write_text(text.replace(old, new, 1))

    def put(self, **keys: Any) -> None:
        """Values in params.yaml, `data__forget__ids` for data.forget.ids."""
        yaml, path = YAML(), self.root / "params.yaml"
        tree = yaml.load(path.read_text())
        for dotted, value in keys.items():
            *sections, key = dotted.split("__")
            section = tree
            for name in sections:
                section = section[name]
            section[key] = value
        yaml.dump(tree, path)


def stages(said: str) -> set[str]:
    return set(re.findall(r"^Running stage '(.+?)':", said, re.MULTILINE))


def checkout(root: Path, bin: Path) -> Checkout:
    """The files that are, or would be, in Git; the pipeline cut down to RUN."""
    found = subprocess.run(["git", "ls-files", "-coz", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if found.returncode:
        pytest.skip("this tree is no Git repository")
    for name in filter(None, found.stdout.split("\0")):
        if name.split("/")[0] in TAKEN and (ROOT / name).exists():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, root / name)
    write_params(root / "params.yaml")
    yaml = YAML()
    pipeline = yaml.load((root / "dvc.yaml").read_text())
    pipeline["vars"][0]["pipeline"] = RUN
    curves = pipeline["plots"][0]["retain_against_forget"]["y"]
    for path in [path for path in curves if Path(path).stem in set(PAPER_METHODS) - set(RUN)]:
        del curves[path]
    yaml.dump(pipeline, root / "dvc.yaml")
    made = Checkout(root, bin)
    made.git("init", "-q", "-b", "main")
    made.commit()
    return made


def checkouts(tmp_path: Path, warm: Warm, built: Path) -> Iterator[Checkout]:
    """With a store that has its tables."""
    with tempfile.TemporaryDirectory() as short, socket.socket(socket.AF_UNIX) as listening:  # such a path has at most 107 bytes
        listening.bind(f"{short}/stages")
        listening.listen()
        threading.Thread(target=_serve, args=(listening, warm), daemon=True).start()
        warm.ask({"modules": ["dvc.cli.parser", "dvc.repo"]})
        programs = tmp_path / "bin"
        programs.mkdir()
        for program in (programs / "python", programs / "dvc", programs / "mlflow"):
            program.write_text(PYTHON.format(python=sys.executable, address=f"{short}/stages"))
            program.chmod(0o755)
        made = checkout(tmp_path / "checkout", programs)
        shutil.copy(built / "mlflow.db", made.root)
        with sqlite3.connect(made.root / "mlflow.db") as store:
            store.execute("update experiments set artifact_location = ?", [str(made.root / "mlruns" / "0")])
        yield made
        listening.shutdown(socket.SHUT_RDWR)


def _serve(listening: socket.socket, warm: Warm) -> None:
    while True:
        try:
            link, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_play, args=(link, warm), daemon=True).start()  # a dvc asks for stages while it runs


def _play(link: socket.socket, warm: Warm) -> None:
    with link:
        program, words, cwd, environment = json.loads(link.makefile().readline())
        if program == "mlflow":
            began = warm.mlflow(words, Path(cwd), environment)
        else:
            script = str(DVC) if program == "dvc" else str(ROOT / "src" / Path(words.pop(0)).name)
            began = warm.start([script, *words], Path(cwd), environment)
        with suppress(ValueError, BrokenPipeError):  # the worker of DVC's queue outlives its command, and may outlive the last test
            done = began.wait()
            link.sendall(json.dumps([done.returncode, done.stdout, done.stderr]).encode())
