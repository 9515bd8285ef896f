"""Command lines: which function does the work, with which words; what the command `lethe` answers without one."""

import ast
import os
import re
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import shtab

from lethe._util.checkout import send_command
from lethe._util.errors import UserError
from lethe._util.names import nearest
from lethe.cli.key_groups import GROUPS, READS, group_of
from lethe.cli.main import lethe
from lethe.cli.stages import STAGES
from lethe.config.schema import SECTIONS, leaves
from lethe.data.sources import summaries
from lethe.models.architectures import OWN
from lethe.recipes import registry
from lethe.tracking import outbox
from support.project import ROOT

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """The command `lethe` with some words: its exit code, stdout and stderr."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["lethe", *words])
        return lethe(), *capsys.readouterr()

    yield run
    for number, handler in handlers.items():  # the command, which is the last of its process, gave them up
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("line", "words", "arguments"),
    [
        ("unlearn --method model_1", "--method model_1", {}),
        ("unlearn --explain --method model_1 --time", "--method model_1", {"measure": True, "names": []}),
        ("unlearn --explain", "", {"measure": False, "names": []}),
        ("unlearn --explain --method=model_1,lethe", "", {"measure": False, "names": ["model_1", "lethe"]}),
        ("unlearn --method model_1,lethe,model_1 --run.seed 1", "--run.seed 1", {"names": ["model_1", "lethe"]}),
        ("unlearn --method all", "", {"names": ["all"]}),
        ("unlearn --method original", "--method original", {}),
        ("evaluate --method model_1", "--method model_1", {"names": []}),
        ("evaluate --method=all --run.seed 1", "--run.seed 1", {"names": ["all"]}),
        ("evaluate --method original", "", {"names": ["original"]}),
        ("evaluate --method model_1,model_3", "", {"names": ["model_1", "model_3"]}),
        ("evaluate --run.seed 1", "--run.seed 1", {"names": []}),
        ("verify", "", {"recompute": False}),
        ("verify --accept a.csv b.json --run.workspace x", "--run.workspace x", {"files": ["a.csv", "b.json"]}),
        ("verify --run.workspace x --accept=a.csv", "--run.workspace x", {"files": ["a.csv"]}),
        ("verify --accept", "", {"files": [""]}),
        ("report", "", {}),
        ("report card --method model_1", "--method model_1", {"names": []}),
        ("card --method model_1", "--method model_1", {"names": []}),
        ("erase --yes --keep nas --keep=/c --run.workspace x", "--run.workspace x", {"source": False, "keep": ["nas", "/c"]}),
        ("card --method model_1,lethe", "", {"names": ["model_1", "lethe"]}),
        ("report card --list train/11 --run.seed 1", "--run.seed 1", {"named": "train/11"}),
        ("card --list=train/11", "", {"named": "train/11"}),
        ("search --search.trials 3", "--search.trials 3", {}),
        ("search adopt 17 --search.seed 1", "--search.seed 1", {"number": 17, "name": ""}),
        ("search adopt 17 gentle", "", {"number": 17, "name": "gentle"}),
        ("demo --run.seed 1", "--run.seed 1", {}),
        ("demo --full", "", {}),
        ("unlearn --list --run.seed 1", "--run.seed 1", {"names": []}),
        ("unlearn --list --method ft,cf_k", "", {"names": ["ft", "cf_k"]}),
    ],
)
def test_a_command_line_has_keys_and_other_words(line: str, words: str, arguments: dict[str, object]) -> None:
    verb, *rest = line.split()
    command = STAGES[verb].parse(rest)
    assert (command.words, command.arguments) == (words.split(), arguments)
    assert command.overlay == ({"demo": "full" if "--full" in rest else "demo"}.get(verb))


def test_other_words_lead_to_another_function() -> None:
    lines = [
        "unlearn",
        "unlearn --explain",
        "unlearn --list",
        "report",
        "report card",
        "report card --list a",
        "search",
        "search adopt 1",
        "demo",
        "demo --full",
    ]
    functions = {STAGES[verb].parse(rest).function for verb, *rest in map(str.split, lines)}
    assert len(functions) == len(lines)
    assert STAGES["card"].parse(["--list", "a"]) == STAGES["report"].parse(["card", "--list", "a"])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("erase --keep", "keep is ''; it takes a remote of DVC, by its name or address, or the folder of DVC's cache"),
        ("card --list", "list is ''; it takes the id of one image, e.g. --list train/5940"),
        ("card --list a --list b", "list is a b; it takes the id of one image, e.g. --list train/5940"),
        ("search adopt", "adopt : it takes the number of a trial and, if you like, a name: adopt 17 gentle"),
        ("search adopt x", "adopt x: it takes the number of a trial"),
        (f"search adopt {'9' * 5000}", "adopt 9999999999"),
        ("search adopt ٣", "adopt ٣: it takes the number of a trial"),
        ("search adopt 1 a b", "adopt 1 a b: it takes the number of a trial"),
        ("send --run.workspace", "run.workspace is ''; it takes a folder"),
        ("send --all", "--all is unknown; send takes folders: send [workspace ...]"),
        ("ui here", "here is not understood; ui takes --port <number>"),
        ("ui --port 1 --port 2", "1 2 is not understood; ui takes --port <number>"),
    ],
)
def test_other_words_are_refused(line: str, message: str) -> None:
    verb, *rest = line.split()
    with pytest.raises(UserError) as caught:
        STAGES[verb].parse(rest)
    assert str(caught.value).startswith(message)


def test_send_takes_a_workspace_as_other_commands_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    for home in (tmp_path / "a b", tmp_path.parent / "elsewhere" / "c"):
        _, _, *words = shlex.split(send_command(home))
        assert STAGES["send"].parse(words).arguments == {"folders": [str(home)]}
    assert shlex.split(send_command(tmp_path))[-1] == "src/send.py"  # which it finds by itself
    assert STAGES["send"].parse(["a", "--run.workspace=b"]).arguments == {"folders": ["a", str(tmp_path / "b")]}


def test_a_leaderboard_has_methods_and_shares() -> None:
    command = STAGES["leaderboard"].parse(["--method", "lethe,ft", "--share", "0.1", "--share=0.2,0.3", "--run.seed", "1"])
    assert command.words == ["--run.seed", "1"]
    assert command.arguments == {"words": command.words, "names": ["lethe", "ft"], "shares": ["0.1", "0.2", "0.3"]}


@pytest.mark.parametrize("words", [[], ["--settings", "2"]])
def test_rows_of_a_leaderboard_are_in_the_experiment_of_the_workspace(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("EXPERIMENT_NAME", "EXPERIMENT_ID", "RUN_ID"):
        monkeypatch.delenv(f"MLFLOW_{key}", raising=False)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "")  # so that what the command sets is taken back
    STAGES["leaderboard"].parse(["--run.workspace", str(tmp_path / "photos"), *words]).work("leaderboard")
    assert os.environ["MLFLOW_EXPERIMENT_NAME"] == "photos"


def test_a_list_of_methods_has_functions_by_their_names() -> None:
    command = STAGES["unlearn"].parse(["--method", "lethe,my.methods:joint", "--run.seed", "1"])
    assert command.words == ["--run.seed", "1", "--methods.joint.like", "my.methods:joint"]
    assert command.arguments == {"names": ["lethe", "joint"]}


def test_every_function_exists() -> None:
    lines = [
        "unlearn --explain",
        "unlearn --list",
        "report card",
        "report card --list a",
        "report card --verify a.json",
        "ledger verify",
        "erase --yes",
        "erase --check",
        "search adopt 1",
        "demo --full",
        *STAGES,
    ]
    for line in lines:
        verb, *rest = line.split()
        module, _, name = STAGES[verb].parse(rest).function.partition(":")
        text = (ROOT / "src" / f"{module.replace('.', '/')}.py").read_text()
        assert name in {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}, line


def test_every_script_in_src_is_a_verb() -> None:
    scripts = {path.stem: path.read_text() for path in (ROOT / "src").glob("*.py")}
    assert scripts.keys() == STAGES.keys() - {"card", "ui"}
    for name, text in scripts.items():
        assert f'sys.exit(main("{name}"))' in text


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "error: no verb is given; `lethe --help` lists them"),
        (["unlern"], "error: unlern is not a verb; nearest: unlearn; `lethe --help` lists them"),
        (["--methods"], "error: --methods is not a verb; nearest: "),
        (["ui", "--port", "0"], "error: port is 0; it takes a number from 1 to 65535"),
        (["ui", "--port", "x"], "error: port is x; it takes a number from 1 to 65535"),
        (["send", "nowhere"], "error: nowhere is not a folder"),
    ],
)
def test_what_lethe_refuses_is_one_line(words: list[str], line: str, run: Run) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith(line)
    assert err.count("\n") == 1


def test_a_port_that_is_in_use_is_refused(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = run("ui", "--port", str(port))
    assert (code, out) == (2, "")
    assert err.startswith(f"error: port {port} is in use; take another: --port ")


def test_help_and_version(run: Run) -> None:
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(f"\n  {verb} " in out for verb in STAGES)
    assert run("--version")[1].startswith("lethe ")
    for verb, stage in STAGES.items():
        code, out, err = run(verb, "--help")
        assert (code, err) == (0, "")
        assert out.startswith(f"usage: lethe {verb} [")
        assert ("--run.workspace" in out) == (stage.takes_keys or verb == "send")
        assert ("--help-all" in out) == stage.takes_keys
        assert "{program}" not in out


def _keys_shown(out: str) -> list[str]:
    return re.findall(r"^  --([\w.<>]+)", out, re.MULTILINE)


def test_every_key_has_one_group_and_help_all_shows_each_once(run: Run) -> None:
    keys = [key for name, kind in SECTIONS.items() for key, _ in leaves(kind, name)]
    assert {group_of(key) for key in keys} | {"Method", "Arguments of the method"} == {*GROUPS}
    with_keys = {verb for verb, stage in STAGES.items() if stage.takes_keys}
    assert {*READS} == with_keys
    assert {group for groups in READS.values() for group in groups} == {*GROUPS}
    for verb in ("report", "search"):
        shown = [key for key in _keys_shown(run(verb, "--help-all")[1]) if not key.startswith(("methods.", "search.spaces"))]
        assert sorted(shown) == sorted([*keys, "method", "config"])


def test_help_shows_what_the_verb_reads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    assert _keys_shown(run("report", "--help")[1]) == ["run.workspace", "run.experiment", "config", "help"]
    out = run("unlearn", "--help", "--method", "ssd")[1]
    shown = _keys_shown(out)
    assert {"data.forget.ids", "pretrain.checkpoint", "run.seeds", "methods.ssd.dampening_strength"} <= {*shown}
    assert not [key for key in shown if key.startswith(("search.", "card.", "methods.hybrid_4"))]
    assert "methods.hybrid_4.peak" in _keys_shown(run("unlearn", "-h")[1])
    assert "card.remains" in _keys_shown(run("card", "--help")[1])
    assert len(run("prepare", "--help")[1].splitlines()) < 70


def test_completion_is_for_known_shells(run: Run) -> None:
    assert run("--completion", "csh") == (2, "", f"error: completion is csh; it takes {', '.join(shtab.SUPPORTED_SHELLS)}\n")
    assert run("--completion")[0] == 2


def test_list_names_what_is_registered(run: Run) -> None:
    code, out, err = run("--list")
    assert (code, err) == (0, "")
    for title in ("Methods (--method)", "Measures (scores/*.json)", "Data sources (--data.source)", "Architectures (--model.architecture)"):
        assert title in out
    for name in (*registry.registered_names(), "mia.svc", "accuracy", *summaries(), *OWN):
        assert f"\n  {name} " in out, name


def test_the_nearest_verb() -> None:
    assert [nearest(word, STAGES) for word in ("lern", "evaluat", "preprain")] == ["unlearn", "evaluate", "pretrain"]


@pytest.mark.parametrize(
    ("words", "environment", "name", "number"),
    [
        ([], {}, None, None),
        (["--run.workspace", "photos"], {}, "photos", None),
        (["--run.workspace", "clients/photos/"], {}, "clients/photos", None),
        (["--run.workspace", "/srv/photos"], {}, "photos", None),
        (["--run.workspace", "photos", "--run.experiment", "team"], {}, "team", None),
        (["--run.workspace", "photos"], {"MLFLOW_EXPERIMENT_NAME": "mine"}, "mine", None),
        (["--run.workspace", "photos"], {"MLFLOW_EXPERIMENT_ID": "7", "MLFLOW_RUN_ID": "a"}, None, "7"),
        (["--run.experiment", "team"], {"MLFLOW_EXPERIMENT_ID": "7"}, "team", None),
    ],
)
def test_the_experiment_of_a_command(
    words: list[str], environment: dict[str, str], name: str | None, number: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("NAME", "ID"):
        monkeypatch.setenv(f"MLFLOW_EXPERIMENT_{key}", "")
    monkeypatch.setenv("MLFLOW_RUN_ID", "")
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    STAGES["prepare"].parse(words).work("prepare")
    chosen = outbox.destination()
    assert (chosen["experiment_name"] or None, chosen["experiment_id"] or None) == (name, number)


def test_mlflow_run_has_chosen_its_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    monkeypatch.setenv("MLFLOW_RUN_ID", "a")
    with pytest.raises(UserError, match="it takes `mlflow run --experiment-name 'a team'`"):
        STAGES["prepare"].parse(["--run.experiment", "a team"]).work("prepare")
