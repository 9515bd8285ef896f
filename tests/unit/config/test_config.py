"""The configuration as its users meet it: what is wrong is said in one line, with key, value, source and what is accepted."""

import json
import os
import pickle
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from lethe._util import redact
from lethe._util.errors import UserError
from lethe._util.names import escape_markdown, objection
from lethe.cli import help as manual
from lethe.config import loader as config
from lethe.config.describe import accepts, show
from lethe.config.loader import Config
from lethe.config.method_schema import arguments, method_section
from lethe.config.schema import SECTIONS, Forget, leaves
from lethe.recipes.registry import registered_names
from lethe.recipes.training import Training
from lethe.workspace import settings
from support.project import ROOT

METHODS = registered_names(chains=False)
NOTHING: dict[str, Any] = {name: None if info.is_required() else info.default for name, info in Forget.model_fields.items()}

PARAMS = ROOT / "params.yaml"
Tree = dict[str, Any]


@cache
def text() -> str:
    return json.dumps(YAML(typ="safe", pure=True).load(PARAMS))


def tree(method: str = "hybrid_4") -> Tree:
    """What params.yaml says, with two methods and one search space only (reading takes time by the line)."""
    said: Tree = json.loads(text())
    said["method"] = method
    said["methods"] = {name: said["methods"][name] for name in dict.fromkeys(("hybrid_4", method))}
    said["search"] |= {"method": "hybrid_4", "spaces": {"hybrid_4": {"lr": {"low": 0.1, "high": 0.2}}}}
    del said["demo"]
    return said


def put(tree: Tree, key: str, value: Any) -> None:
    *parents, leaf = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[leaf] = value


def written(tree: Mapping[str, Any], folder: Path) -> Path:
    """The tree as a file, a key a line."""
    path = folder / "params.yaml"
    path.write_text(json.dumps(tree, indent=1))  # JSON is YAML
    return path


def line(path: Path, mark: str) -> int:
    """The number of the only line that holds `mark`."""
    (number,) = [number for number, said in enumerate(path.read_text().splitlines(), 1) if mark in said]
    return number


def refusal(argv: list[str], params: Path = PARAMS, overlay: str | None = None) -> str:
    with pytest.raises(UserError) as raised:
        config.load(argv, params=params, overlay=overlay, settings=settings.layer)
    said = str(raised.value)
    assert "\n" not in said
    assert "pydantic" not in said
    assert len(said) < 400
    return said


def everything() -> Iterator[tuple[str, Any]]:
    """Every key of every section and method, with its field."""
    for name, kind in SECTIONS.items():
        yield from leaves(kind, name)
    for name in (*METHODS, "as_run"):
        yield from leaves(method_section(name), f"methods.{name}")


def method_of(key: str) -> str:
    return key.split(".")[1] if key.startswith("methods.") else "hybrid_4"


# --- what the command line gets wrong ---------------------------------------------------------------------------------

REFUSED = [  # what is typed; the message, or how it begins
    ("--method x", "method x is unknown (command line); nearest: "),
    ("--method hybrd_4", "method hybrd_4 is unknown (command line); nearest: hybrid_4; `python src/unlearn.py --list` describes all"),
    ("--methods.hybrid_4.lr 0", "methods.hybrid_4.lr is 0 (command line); it takes a number > 0"),
    ("--methods.hybrid_4.lr nan", "methods.hybrid_4.lr is nan (command line); it takes a number > 0"),
    ("--methods.hybrid_4.lr inf", "methods.hybrid_4.lr is inf (command line); it takes a number > 0"),
    ("--methods.hybrid_4.lr 0,001", "methods.hybrid_4.lr is 0,001 (command line); it takes a number > 0"),
    ("--methods.hybrid_4.lr null", "methods.hybrid_4.lr is null (command line); it takes a number > 0"),
    ("--methods.hybrid_4.epochs -1", "methods.hybrid_4.epochs is -1 (command line); it takes an integer >= 0"),
    ("--methods.hybrid_4.epochs 1.5", "methods.hybrid_4.epochs is 1.5 (command line); it takes an integer >= 0"),
    ("--methods.model_4.scale 0.1", "methods.model_4.scale is 0.1 (command line); it takes a number <= 0"),
    ("--methods.hybrid_1.peak 1", "methods.hybrid_1.peak is 1 (command line); it takes a number <= 0"),
    (
        "--methods.hybrid_4.unfreeze_at 1.1",
        "methods.hybrid_4.unfreeze_at is 1.1 (command line); it takes a number >= 0 and <= 1",
    ),
    ("--methods.hybrid_4.momentum 1", "methods.hybrid_4.momentum is 1 (command line); it takes a number >= 0 and < 1"),
    ("--methods.hybrid_4.batch_size 0", "methods.hybrid_4.batch_size is 0 (command line); it takes an integer >= 1"),
    ("--methods.hybrid_4.keep first", "methods.hybrid_4.keep is first (command line); it takes last, best"),
    ("--methods.hybrid_4.trains ,", "methods.hybrid_4.trains is , (command line); it takes names, as a,b"),
    ("--methods.hybrid_4.trains=", "methods.hybrid_4.trains is '' (command line); it takes names, as a,b"),
    ("--data.forget.fraction 0", "data.forget.fraction is 0 (command line); it takes a number > 0 and < 1 or null"),
    ("--data.forget.fraction 1", "data.forget.fraction is 1 (command line); it takes a number > 0 and < 1 or null"),
    ("--data.forget.count 0", "data.forget.count is 0 (command line); it takes an integer >= 1 or null"),
    ("--data.mean 0.5,0.5", "data.mean is 0.5,0.5 (command line); it takes 3 numbers, as 0.5,0.5,0.5"),
    ("--data.std 0,1,1", "data.std is 0,1,1 (command line); it takes 3 numbers > 0, as 0.5,0.5,0.5"),
    ("--run.device gpu", "run.device is gpu (command line); it takes auto, cpu, mps, cuda or cuda:<n>"),
    ("--run.precision half", "run.precision is half (command line); it takes float32, bfloat16, auto"),
    ("--run.channels_last maybe", "run.channels_last is maybe (command line); it takes true or false"),
    ("--data.source image_folder", "data.root is null; with data.source image_folder it takes a folder with train/<class>/*"),
    ("--methods.hybrid_4.scael -1", "methods.hybrid_4.scael is unknown (command line); nearest: methods.hybrid_4.shape"),
    ("--methods.model_4.scael -1", "methods.model_4.scael is unknown (command line); nearest: methods.model_4.scale"),
    ("--methods.model_1.scale -1", "methods.model_1.scale is unknown (command line); nearest: methods.model_"),
    ("--seed 1", "seed is unknown (command line); nearest: "),
    ("--run.sede 1", "run.sede is unknown (command line); nearest: run.seed"),
    ("--data.forget 3", "data.forget is unknown (command line); nearest: data.forget."),
    ("--methods.hybrid_5.lr 1", "methods.hybrid_5.lr is unknown (command line); nearest: methods.hybrid_"),
    ("--run.seed", "run.seed has no value (command line); it takes --run.seed <value>"),
    ("--run.seed 1 --run.seed 2", "run.seed is given twice (command line): 1 and 2"),
    ("run.seed 1", "'run.seed' is not understood; it takes --key value, e.g. --run.seed 1"),
    (
        "--data.forget.count 3 --data.forget.fraction 0.1",
        "data.forget.count and data.forget.fraction are both given (command line)",
    ),
    ("--run.register_alias champion", "run.register_alias is champion (command line); it takes a run.register_as"),
    ("--run.register_as a/b", "run.register_as is a/b (command line); it takes a name without / and :"),
    ("--run.register_as a --run.log_model none", "run.register_as is a (command line); run.log_model none logs no model"),
    ("--run.register_as a --run.seeds 2", "run.register_as is a (command line); one model is registered, so run.seeds is 1"),
    ("--run.register_as a --run.register_alias v3", "run.register_alias is v3 (command line); it takes letters, digits, - and _"),
    ("--pretrain.optimizer lamb", "pretrain.optimizer is lamb (command line); it takes sgd, adam, adamw"),
    ("--pretrain.optimizer adamw", "pretrain.lr is 0.1 (params.yaml, line "),
    ("--pretrain.optimizer adamw --pretrain.lr 0.001", "pretrain.final_lr is 0.01 (params.yaml, line "),
    ("--pretrain.warmup 0.1", "pretrain.warmup is 0.1 (command line); pretrain.lr_schedule one_cycle has a warm-up of its own"),
    ("--pretrain.augment cutmix", "pretrain.augment is cutmix (command line); it takes names, as flip,crop4,resized_crop0.5 or null"),
    ("--pretrain.augment resized_crop1.5", "pretrain.augment is resized_crop1.5 (command line); it takes names"),
    ("--pretrain.recipe nowhere:train", "pretrain.recipe is 'nowhere:train': ModuleNotFoundError"),
    (
        "--pretrain.recipe textwrap:dedent --pretrain.lr 1",
        "pretrain.lr is 1 (command line); pretrain.recipe textwrap:dedent has no argument lr",
    ),
    ("--data.forget.count null", "data.forget: none of them is set; it takes exactly one of fraction, count, classes, ids, where"),
]


def test_a_configuration_can_be_piped() -> None:
    """As `--config <(...)` and `... | --config /dev/stdin` do; a pipe that a file name stands for is refused (it may wait for ever).

    A command may load several times, as for each row of the leaderboard, and a pipe is empty once it was read."""
    ends = os.pipe()
    os.write(ends[1], b"run: {seed: 7}\n")
    os.close(ends[1])
    for _ in range(2):
        assert config.load(["--config", f"/dev/fd/{ends[0]}"], params=PARAMS).run.seed == 7
    os.close(ends[0])
    ends = os.pipe()
    os.write(ends[1], b"run: {sede: 7}\n")
    os.close(ends[1])
    place = f"/dev/fd/{ends[0]}"
    assert refusal(["--config", place]) == f"run.sede is unknown ({place}); nearest: run.seed"
    os.close(ends[0])


@pytest.mark.parametrize(("typed", "says"), REFUSED, ids=[typed for typed, _ in REFUSED])
def test_wrong_input_is_named(typed: str, says: str) -> None:
    assert refusal(typed.split(" ")).startswith(says)


def wrong(info: Any) -> str:
    """Something that the key does not take, as typed."""
    annotation = info.annotation
    kinds = [kind for kind in (get_args(annotation) if NoneType in get_args(annotation) else (annotation,)) if kind is not NoneType]
    if any(kind in (int, float, bool) or get_origin(kind) is Literal for kind in kinds):
        return "wrong"
    if "numbers" in accepts(info):
        return "1,2"
    if info.default == () or "flip" in accepts(info):
        return "!"  # no names at all are accepted there
    return "" if "names" in accepts(info) else "null"


def test_every_key_refuses_a_wrong_value_on_the_command_line(tmp_path: Path) -> None:
    tried = 0
    paths: dict[str, Path] = {}
    for key, info in everything():
        method = method_of(key)
        if method not in paths:
            (tmp_path / method).mkdir()
            paths[method] = written(tree(method), tmp_path / method)
        value = wrong(info)
        if value == "null" and "null" in accepts(info):
            continue  # a text or a path, or none: anything typed is one of them
        said = refusal([f"--{key}", value], paths[method])
        shown = value or "''"
        assert said == f"{key} is {shown} (command line); it takes {accepts(info)}"
        tried += 1
    assert tried > 150


def test_every_key_refuses_a_wrong_value_in_the_file(tmp_path: Path) -> None:
    """A section where a value should stand: of the wrong type for every key. The line is that of the key."""
    tried = 0
    for key, info in everything():
        if key.startswith("methods.") and method_of(key) not in ("hybrid_4", "as_run"):
            continue  # the same fields again
        said = tree(method_of(key))
        put(said, key, {"wrong": 1})
        path = written(said, tmp_path)
        found = refusal([], path)
        assert found == f"{key} is {{'wrong': 1}} (params.yaml, line {line(path, 'wrong') - 1}); it takes {accepts(info)}"
        tried += 1
    assert tried > 60


def test_no_number_takes_nan_or_what_lies_beyond_its_bounds() -> None:
    for word, info in arguments().items():
        method = next(name for name in (*METHODS, "as_run") if word in method_section(name).model_fields)
        if "number" not in accepts(info):
            continue
        marks = {mark: getattr(one, mark) for one in info.metadata for mark in ("gt", "ge", "lt", "le") if hasattr(one, mark)}
        beyond = {"gt": 0, "ge": -1, "lt": 0, "le": 1}  # away from the bound: on it, or one further
        values = ["nan", "inf", "-inf", *(str(bound + beyond[mark]) for mark, bound in marks.items())]
        assert marks, word
        for value in values:
            with pytest.raises(ValueError, match=word):
                method_section(method).model_validate(json.loads(text())["methods"][method] | {word: value})


# --- what the file gets wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("run.sede", 1, "run.sede is unknown (params.yaml, line {}); nearest: run.seed"),
        ("data.forget.cuont", 1, "data.forget.cuont is unknown (params.yaml, line {}); nearest: data.forget.count"),
        (
            "methods.hybrid_4.scael",
            -1,
            "methods.hybrid_4.scael is unknown (params.yaml, line {}); nearest: methods.hybrid_4.shape",
        ),
        ("rnu", {"seed": 1}, "rnu is unknown (params.yaml, line {}); nearest: run"),
        ("methods.hybrid_5", {"lr": 1}, "methods.hybrid_5 (params.yaml, line {}) is unknown; nearest: methods.hybrid_"),
        ("methods.hybrid_4", 3, "methods.hybrid_4 is 3 (params.yaml, line {}); it takes a section"),
        ("data.forget", 3, "data.forget is 3 (params.yaml, line {}); it takes a section"),
        ("method", "hybrid", "method hybrid is unknown (params.yaml, line {}); nearest: hybrid_"),
        ("run.seed", -1, "run.seed is -1 (params.yaml, line {}); it takes an integer >= 0"),
        ("run.seed", True, "run.seed is true (params.yaml, line {}); it takes an integer >= 0"),
        ("run.seed", None, "run.seed is null (params.yaml, line {}); it takes an integer >= 0"),
        ("data.std", [1, 1, 0], "data.std is 1,1,0 (params.yaml, line {}); it takes 3 numbers > 0"),
        ("methods.hybrid_4.trains", [], "methods.hybrid_4.trains is [] (params.yaml, line {}); it takes names"),
    ],
)
def test_the_line_of_what_is_wrong_is_named(key: str, value: Any, says: str, tmp_path: Path) -> None:
    said = tree()
    put(said, key, value)
    path = written(said, tmp_path)
    *parents, leaf = key.split(".")
    mark = f"\n{' ' * (len(parents) + 1)}{json.dumps(leaf)}:"
    whole = path.read_text()
    start = whole.index(f'\n "{parents[0]}":') if parents else 0  # a key of the same name may stand in another section
    if len(parents) > 1:
        start = whole.index(f'\n  "{parents[1]}":', start)
    assert refusal([], path).startswith(says.format(whole[: whole.index(mark, start) + 1].count("\n") + 1))


def test_a_key_left_out_is_missing(tmp_path: Path) -> None:
    for key, says in (
        ("run.seed", "run.seed is missing (params.yaml); it takes an integer >= 0 and <= 2147483647"),
        ("methods.hybrid_4.lr", "methods.hybrid_4.lr is missing (params.yaml); it takes a number > 0"),
        ("run", "run is null (params.yaml); it takes a section"),
    ):
        said = tree()
        node = said
        for parent in key.split(".")[:-1]:
            node = node[parent]
        del node[key.split(".")[-1]]
        assert refusal([], written(said, tmp_path)) == says


@pytest.mark.parametrize(
    ("key", "wrong", "says"),
    [
        ("data.seed", "sead", "data.sead is unknown (params.yaml, line {}); nearest: data.seed"),
        ("methods.hybrid_4.peak", "peek", "methods.hybrid_4.peek is unknown (params.yaml, line {}); nearest: methods.hybrid_4.peak"),
        ("pretrain", "pretrein", "pretrein is unknown (params.yaml, line {}); nearest: pretrain"),
    ],
)
def test_a_misspelled_key_is_unknown_and_not_its_right_name_missing(key: str, wrong: str, says: str, tmp_path: Path) -> None:
    said = tree()
    node = said
    *parents, leaf = key.split(".")
    for parent in parents:
        node = node[parent]
    node[wrong] = node.pop(leaf)
    path = written(said, tmp_path)
    line = next(number for number, text in enumerate(path.read_text().splitlines(), 1) if f'"{wrong}":' in text)
    assert refusal([], path) == says.format(line)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"run: {seed: 1\nmethod: [", "params.yaml, line "),
        (b"run:\n  seed: 1\n  seed: 2\n", "params.yaml, line 3: "),
        (b"run:\n\tseed: 1\n", "params.yaml, line 2: "),
        (b"- a\n- b\n", "params.yaml: it takes sections, not ['a', 'b']"),
        (b"", "methods is null (params.yaml); it takes a section for each method"),
    ],
)
def test_a_file_that_is_no_yaml(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    assert refusal([], path).startswith(says)


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    assert refusal([], path) == f"{path} does not exist"
    path.write_bytes(b"run: \xff\n")
    assert refusal([], path).startswith(f"{path} can't be read: ")
    assert refusal([], tmp_path).startswith(f"{tmp_path} can't be read: ")


# --- what is right ----------------------------------------------------------------------------------------------------


def test_params_yaml_is_right_with_and_without_its_overlay() -> None:
    real, demo = config.load(params=PARAMS), config.load(params=PARAMS, overlay="demo")
    said = json.loads(text())
    assert (real.data.source, real.model.architecture, real.method) == ("cifar10", "resnet18", "hybrid_4")
    assert (demo.data.source, demo.model.architecture, demo.run.workspace) == ("digits", "convnet", Path("demo"))
    assert demo.pretrain.momentum == real.pretrain.momentum
    for name in METHODS:
        own = real.methods[name]
        assert demo.methods[name] == own.model_validate(own.model_dump() | said["demo"]["methods"][name])
    assert set(real.methods) >= {*METHODS, "as_run"}


def test_the_full_demo_is_laid_over_the_demo() -> None:
    demo, full = config.load(params=PARAMS, overlay="demo"), config.load(params=PARAMS, overlay="full")
    assert (full.model, full.methods["model_1"], full.data.limit) == (demo.model, demo.methods["model_1"], demo.data.limit)
    assert (full.data.forget.fraction, full.pretrain.crop, full.retrain.epochs, full.methods["hybrid_4"].model_dump()["peak"]) == (
        0.5,
        2,
        None,
        -1.2,
    )
    assert (full.retrain.seeds, full.pretrain.seeds, full.run.workspace.name) == (64, 64, "demo-full")


def test_the_command_line_wins_over_the_overlay_and_that_over_the_file(tmp_path: Path) -> None:
    said = tree()
    put(said, "demo", {"run": {"seed": 5, "threads": 2}})
    path = written(said, tmp_path)
    assert config.load(params=path).run.seed == said["run"]["seed"]
    assert config.load(params=path, overlay="demo").run.seed == 5
    both = config.load(["--run.seed", "7"], params=path, overlay="demo")
    assert (both.run.seed, both.run.threads) == (7, 2)
    assert both.given == {"run.seed": "7", "run.threads": "2"}  # what is said beside the file


def test_a_file_of_ones_own_overrides_what_the_workspace_remembers_and_the_command_line_both(tmp_path: Path) -> None:
    path = written(tree() | {"demo": {"run": {"seed": 5}}}, tmp_path)
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "settings.yaml").write_text("run: {seed: 6}\ndata: {limit: 7, forget: {count: 5}}\npretrain: {lr: 0.5}\n")
    own = tmp_path / "own.yaml"
    own.write_text(
        f"run: {{workspace: {tmp_path / 'w'}, threads: 3}}\ndata: {{limit: 9}}\nmethods: {{mine: {{like: hybrid_4, epochs: 2}}}}\n"
    )
    typed = ["--run.workspace", str(tmp_path / "w")]
    remembered = config.load(typed, params=path, settings=settings.layer)
    assert (remembered.run.seed, remembered.data.limit, remembered.pretrain.lr) == (6, 7, 0.5)
    remembered = config.load(typed, params=path, overlay="demo", settings=settings.layer)
    assert (remembered.run.seed, remembered.data.limit, remembered.pretrain.lr) == (5, 7, 0.5), "the stage's section is asked for now"
    assert dict(remembered.data.forget) == NOTHING | {"count": 5}
    assert remembered.given == {"run.seed": "5", "run.workspace": str(tmp_path / "w")}, "what is remembered is not given"
    assert remembered.settings == {"run.seed": "6", "data.limit": "7", "data.forget.count": "5", "pretrain.lr": "0.5"}
    both = config.load(["--config", str(own), "--method=mine", "--data.forget.classes=a,b"], params=path, settings=settings.layer)
    assert (both.run.threads, both.data.limit, both.pretrain.lr, both.methods["mine"].epochs) == (3, 9, 0.5, 2)  # type: ignore[attr-defined]
    assert both.data.forget.classes == ("a", "b")
    assert both.data.forget.count is None
    assert both.given["data.limit"] == "9"
    assert config.load([f"--config={own}", "--data.limit", "8"], params=path).data.limit == 8


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("data:\n limit: 0\n", "data.limit is 0 ({}, line 2); it takes an integer >= 1 or null"),
        ("data:\n limt: 3\n", "data.limt is unknown ({}, line 2); nearest: data.limit"),
        ("rnu: {seed: 1}\n", "rnu is unknown ({}, line 1); nearest: run"),
        ("demo: {run: {seed: 1}}\n", "demo is unknown ({}, line 1); nearest: "),
        ("methods:\n  mine: {lr: 1}\n", "methods.mine ({}, line 2) is unknown; nearest: methods."),
        ("run: [", "{}, line "),
        ("- a\n", "{}: it takes sections, not ['a']"),
    ],
)
def test_what_a_layer_gets_wrong_has_its_file_and_line(content: str, says: str, tmp_path: Path) -> None:
    path = written(tree(), tmp_path)
    own, remembered = tmp_path / "own.yaml", tmp_path / "w" / "settings.yaml"
    remembered.parent.mkdir()
    for file, typed in ((own, ["--config", str(own)]), (remembered, ["--run.workspace", str(tmp_path / "w")])):
        file.write_text(content)
        assert refusal(typed, path).startswith(says.format(file))
        file.unlink()


def test_a_config_file_must_exist(tmp_path: Path) -> None:
    assert refusal(["--config", str(tmp_path / "own.yaml")]) == f"{tmp_path / 'own.yaml'} does not exist"
    assert refusal(["--config"]) == "config has no value (command line); it takes --config <value>"


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("demo.data.limit", 0, "data.limit is 0 (params.yaml, line {}); it takes an integer >= 1 or null"),
        ("demo.data.limt", 3, "data.limt is unknown (params.yaml, line {}); nearest: data.limit"),
        (
            "demo.methods.hybrid_4.epochs",
            -2,
            "methods.hybrid_4.epochs is -2 (params.yaml, line {}); it takes an integer >= 0 and <= 100000",
        ),
    ],
)
def test_what_the_overlay_gets_wrong_has_the_overlays_line(key: str, value: int, says: str, tmp_path: Path) -> None:
    said = tree()
    put(said, key, value)
    path = written(said, tmp_path)
    start = path.read_text().index('\n "demo":')
    at = path.read_text().index(f'"{key.split(".")[-1]}":', start)
    assert refusal([], path, "demo") == says.format(path.read_text()[:at].count("\n") + 1)


@pytest.mark.parametrize(
    ("typed", "key", "value"),
    [
        ("--methods.hybrid_4.lr 1e-4", "methods.hybrid_4.lr", 0.0001),
        ("--methods.hybrid_4.epochs 3", "methods.hybrid_4.epochs", 3),
        ("--methods.hybrid_4.peak -0.5", "methods.hybrid_4.peak", -0.5),
        ("--methods.hybrid_4.trains layer3,fc", "methods.hybrid_4.trains", ("layer3", "fc")),
        ("--methods.hybrid_4.trains all", "methods.hybrid_4.trains", ("all",)),
        ("--run.channels_last false", "run.channels_last", False),
        ("--run.threads null", "run.threads", None),
        ("--run.device=cuda:1", "run.device", "cuda:1"),
        ("--data.mean 0,0.5,1", "data.mean", (0.0, 0.5, 1.0)),
        ("--data.forget.classes cat,dog", "data.forget.classes", ("cat", "dog")),
        ("--data.forget.classes 3", "data.forget.classes", ("3",)),
        ("--data.forget.fraction null --data.forget.count 3", "data.forget.count", 3),
        ("--model.architecture mine:net", "model.architecture", "mine:net"),
        ("--data.source image_folder --data.root ~/x", "data.root", Path("~/x")),
    ],
)
def test_values_are_typed(typed: str, key: str, value: Any) -> None:
    found = at(config.load(typed.split(" "), params=PARAMS), key)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("data.forget.classes", 3, ("3",)),
        ("data.forget.classes", 0.5, ("0.5",)),
        ("data.forget.classes", "cat", ("cat",)),
        ("data.forget.classes", "cat, dog", ("cat", "dog")),
        ("methods.hybrid_4.trains", "all", ("all",)),
        ("methods.hybrid_4.unfreeze", 1, ("1",)),
        ("search.spaces.hybrid_4.lr", {"choices": 0.5}, (0.5,)),
    ],
)
def test_a_list_of_one_may_stand_alone(key: str, value: Any, found: tuple[Any, ...], tmp_path: Path) -> None:
    """In the file as on the command line."""
    said = tree()
    if key.startswith("data.forget."):
        said["data"]["forget"] = dict(NOTHING)
    put(said, key, value)
    read = config.load(params=written(said, tmp_path))
    assert (read.spaces["hybrid_4"]["lr"].choices if "spaces" in key else at(read, key)) == found


@pytest.mark.parametrize("value", [True, {"cat": 1}])
def test_what_is_no_name_is_no_list_of_one(value: Any, tmp_path: Path) -> None:
    said = tree()
    said["data"]["forget"] = NOTHING | {"classes": value}
    assert "it takes names, as a,b or null" in refusal([], written(said, tmp_path))


def at(said: Config, key: str) -> Any:
    found: Any = said
    for part in key.split("."):
        found = found[part] if isinstance(found, Mapping) else getattr(found, part)
    return found


@pytest.mark.parametrize("written_as", ["1e-4", "1.0e-4", "0.0001", "'1e-4'"])
def test_numbers_may_be_written_as_one_likes(written_as: str, tmp_path: Path) -> None:
    path = written(tree() | {"methods": {"hybrid_4": tree()["methods"]["hybrid_4"] | {"lr": "HERE"}}}, tmp_path)
    path.write_text(path.read_text().replace('"HERE"', written_as))
    assert at(config.load(params=path), "methods.hybrid_4.lr") == 0.0001


def test_nothing_can_be_changed_afterwards() -> None:
    said = config.load(params=PARAMS)
    with pytest.raises(ValueError, match="frozen"):
        said.run.seed = 3  # type: ignore[misc]


# --- the forget set ---------------------------------------------------------------------------------------------------

REQUESTS = {"fraction": ("0.2", 0.2), "count": ("7", 7), "classes": ("a,b", ("a", "b")), "ids": ("list.csv", Path("list.csv"))} | {
    "where": ("user=u1,name=Doe, J", ("user=u1", "name=Doe, J"))
}


@pytest.mark.parametrize("name", REQUESTS)
def test_naming_one_request_replaces_the_files(name: str) -> None:
    typed, value = REQUESTS[name]
    for overlay in (None, "demo"):
        forget = config.load([f"--data.forget.{name}", typed], params=PARAMS, overlay=overlay).data.forget
        assert dict(forget) == NOTHING | {name: value}


def test_conditions_may_be_given_one_by_one_and_names_may_have_commas() -> None:
    read = config.load(["--data.forget.where", "user=Doe, J", "--data.forget.where", "camera=b"], params=PARAMS).data.forget
    assert read.where == ("user=Doe, J", "camera=b")
    for typed in ('"tench, Tinca tinca",shark', '["tench, Tinca tinca", "shark"]', 'shark, "tench, Tinca tinca"'):
        classes = config.load(["--data.forget.classes", typed], params=PARAMS).data.forget.classes
        assert sorted(classes or ()) == ["shark", "tench, Tinca tinca"]
        assert config.load(["--data.forget.classes", show(classes)], params=PARAMS).data.forget.classes == classes


def test_a_policy_on_requests_is_not_part_of_a_request(tmp_path: Path) -> None:
    """A column belongs to the list that it is a column of."""
    said = tree()
    said["data"]["forget"] = dict(NOTHING) | {"ids": "x.csv", "column": "photo"}
    read = config.load(["--data.forget.ids", "y.csv"], params=written(said, tmp_path)).data.forget
    assert (read.ids, read.column) == (Path("y.csv"), None)
    said["data"]["forget"]["copies"] = "include"
    assert config.load(["--data.forget.ids", "y.csv"], params=written(said, tmp_path)).data.forget.copies == "include"


def test_exactly_one_request_in_the_file(tmp_path: Path) -> None:
    none: Tree = dict(NOTHING)
    for asked, says in (
        ({}, "none of them is set"),
        ({"fraction": 0.1, "count": 3}, "fraction and count are set"),
        ({"count": 3, "ids": "x"}, "count and ids are set"),
    ):
        said = tree()
        said["data"]["forget"] = none | asked
        expected = f"data.forget: {says}; it takes exactly one of fraction, count, classes, ids, where"
        assert refusal([], written(said, tmp_path)) == expected


def test_an_overlays_request_replaces_the_files(tmp_path: Path) -> None:
    said = tree() | {"demo": {"data": {"forget": {"count": 3}}}}
    assert config.load(params=written(said, tmp_path), overlay="demo").data.forget.count == 3
    said["demo"] = {"data": {"forget": {"count": 3, "fraction": 0.5}}}
    assert refusal([], written(said, tmp_path), "demo").startswith("data.forget: fraction and count are set;")


# --- variants ---------------------------------------------------------------------------------------------------------


def variants(tmp_path: Path, **own: Any) -> Path:
    said = tree("model_6")
    said["methods"] |= own
    return written(said, tmp_path)


def test_a_variant_is_another_method_but_for_what_it_says(tmp_path: Path) -> None:
    path = variants(tmp_path, short={"like": "hybrid_4", "epochs": 5}, shorter={"like": "short", "final_epochs": 1})
    said = config.load(["--method", "shorter", "--methods.hybrid_4.power", "3"], params=path)
    base = said.methods["hybrid_4"]
    assert dict(said.methods["shorter"]) == dict(base) | {"epochs": 5, "final_epochs": 1}
    assert said.methods["short"].power == 3  # type: ignore[attr-defined]
    assert said.like["shorter"] == said.like["hybrid_4"] == "hybrid_4"
    assert not said.chain
    assert [phase.epochs for phase in said.recipe()] == [5, 1]  # type: ignore[union-attr]
    assert said.resolved()["methods.shorter.epochs"] == 5


@pytest.mark.parametrize("name", ["original", "Retrained", "all", "bank", "search"])
def test_a_variant_can_not_take_the_name_of_a_reference(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=rf"^methods\.'{name}' \(params\.yaml, line \d+\): {name.lower()} is reserved for what this program"
    ):
        config.load([], params=variants(tmp_path, **{name: {"like": "hybrid_4"}}))


@given(st.text(min_size=1, max_size=70))
def test_a_name_is_no_path_and_no_option(name: str) -> None:
    if objection(name) is None:
        assert Path(name).name == name
        assert shlex.quote(name) == name == escape_markdown(name).replace("\\", "")
        assert not name.startswith(("-", "."))
        assert len(name) <= 64


@pytest.mark.parametrize("where", ["params.yaml", "command line", "--config"])
def test_the_secrets_of_an_address_are_in_no_value(where: str, tmp_path: Path) -> None:
    signed, shown = "https://me:geheim@host/a.pth?sig=geheim#key=net", "https://host/a.pth#key=net"
    words = ["--pretrain.checkpoint", signed] if where == "command line" else []
    params = variants(tmp_path)
    if where == "params.yaml":
        said = tree("model_6")
        said["pretrain"]["checkpoint"] = signed
        params = written(said, tmp_path)
    if where == "--config":
        (tmp_path / "own.yaml").write_text(f"pretrain: {{checkpoint: '{signed}'}}\n")
        words = ["--config", str(tmp_path / "own.yaml")]
    loaded = config.load(words, params=params)
    assert loaded.pretrain.checkpoint == shown
    assert "geheim" not in repr(loaded)
    assert redact.whole("https://host/a.pth") == signed.partition("#")[0]


@pytest.mark.parametrize(
    "words", ["--methods.mine.like model_6 --methods.mine.epochs 2", "--methods.mine.epochs 2 --methods.mine.like model_6"]
)
def test_a_variant_may_be_typed(words: str, tmp_path: Path) -> None:
    said = config.load(["--method", "mine", *words.split(" ")], params=variants(tmp_path))
    assert dict(said.methods["mine"]) == dict(said.methods["model_6"]) | {"epochs": 2}


@pytest.mark.parametrize(
    ("own", "says"),
    [
        ({"like": "hybrid_9"}, "methods.mine.like is 'hybrid_9'; it takes another method: hybrid_4, model_6"),
        ({"like": "mine"}, "methods.mine.like is 'mine'; it takes another method: hybrid_4, model_6"),
        ({"like": ["model_6"]}, "methods.mine.like is ['model_6']; it takes another method: hybrid_4, model_6"),
        ({"like": 3}, "methods.mine.like is 3; it takes another method: hybrid_4, model_6"),
        ({"epochs": 3}, "methods.mine (params.yaml, line {}) is unknown; nearest: methods."),
        ({"like": "model_6", "unfreeze": ["fc"]}, "methods.mine.unfreeze is unknown (params.yaml, line {}); nearest: methods."),
        ({"like": "model_6", "epochs": -1}, "methods.mine.epochs is -1 (params.yaml, line {}); it takes an integer >= 0"),
    ],
)
def test_a_variant_that_does_not_fit(own: Tree, says: str, tmp_path: Path) -> None:
    path = variants(tmp_path, mine=own)
    whole = path.read_text()
    start = whole.index('"mine":')
    last = list(own)[-1]
    number = whole[: start if says.startswith("methods.mine (") else whole.index(f'"{last}":', start)].count("\n") + 1
    assert refusal([], path).startswith(says.format(number))


def test_variants_that_name_each_other_are_refused(tmp_path: Path) -> None:
    path = variants(tmp_path, one={"like": "other"}, other={"like": "one"})
    for argv in ([], ["--run.seed", "1"]):
        assert refusal(argv, path) == "methods.other.like is 'one'; it takes another method: hybrid_4, model_6"


# --- all of it, written down ------------------------------------------------------------------------------------------


def test_as_json_holds_every_key_and_reads_back(tmp_path: Path) -> None:
    said = config.load(["--run.seed", "3", "--data.forget.classes", "a,b", "--methods.hybrid_4.lr", "0.5"], params=PARAMS)
    back = json.loads(said.as_json())
    for key, _ in everything():
        node = back
        for part in key.split("."):
            node = node[part]
    assert back["run"]["seed"] == 3
    path = tmp_path / "params.yaml"
    path.write_text(json.dumps(back))
    again = config.load(params=path)
    assert again.as_json() == said.as_json()
    assert again.methods == said.methods
    assert again.spaces == said.spaces
    assert {name: set(own) for name, own in back["search"]["spaces"].items()} == {
        name: set(own) for name, own in json.loads(text())["search"]["spaces"].items()
    }
    assert again.recipe() == said.recipe()


def test_resolved_names_what_matters_to_a_row() -> None:
    said = config.load(["--method", "model_4"], params=PARAMS)
    own, original, retrained = said.resolved(), said.resolved("original"), said.resolved("retrained")
    assert own["methods.model_4.scale"] == -0.1
    assert own["methods.model_4.trains"] == "all"
    assert {key.split(".")[0] for key in own} >= {"data", "model", "run", "method", "methods"}
    assert not any(key.startswith(("pretrain", "retrain", "methods.hybrid")) for key in own)
    assert "pretrain.lr" in original
    assert not any(key.startswith(("retrain", "method")) for key in original)
    assert "retrain.epochs" in retrained
    assert all(not isinstance(value, list | dict) for value in own.values())


def test_relative_paths_stand_under_the_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = config.load(["--run.workspace", "w"], params=PARAMS)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    assert said.workspace == ROOT / "w"
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert said.workspace == tmp_path / "w"
    assert said.path(Path("/elsewhere")) == Path("/elsewhere")


def test_help_names_every_key_with_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "110")
    for stage in ("unlearn", "prepare"):
        said = manual.stage(stage, f"python src/{stage}.py", every=True).splitlines()
        for key, info in everything():
            if key.startswith("methods."):
                key = f"methods.<method>.{key.split('.')[2]}"
            number = said.index(f"  --{key}  {accepts(info)}")
            assert info.description
            assert " ".join(line.strip() for line in said[number + 1 : number + 4]).startswith(info.description)  # long ones are broken
        number = said.index("  --method  a name")
        methods = " ".join(line.strip() for line in said[number + 1 : number + 12]).partition("--")[0]
        assert all(name in methods for name in (*METHODS, "as_run"))
        assert said[0].startswith(f"usage: python src/{stage}.py")


# Keys that an earlier workspace's params.yaml does not have
ADDED = {
    "card.remains",
    "card.signing_key",
    "card.smallest_class",
    "evaluate.perturbed",
    "data.forget.column",
    "data.held_out.fraction",
    "data.resize",
    "data.skip_unreadable",
    "data.forget.copies",
    "data.forget.where",
    "data.metadata",
    *(f"pretrain.{key}" for key in ("init", "recipe", "lr_schedule", "warmup", "optimizer", "label_smoothing", "class_weights", "augment")),
    "pretrain.classes",
    "pretrain.min_steps",
    "run.experiment",
    "run.measures",
    "run.originals",
    "run.register_alias",
    "run.register_as",
    "search.max_share",
    *(f"methods.*.{name}" for name in ("pull_on", "fade", "ascent_limit", "end_at")),
    *(f"methods.*.{field.name}" for field in fields(Training) if field.default is not MISSING),
}


def test_every_field_says_what_it_means() -> None:
    for key, info in everything():
        assert info.description, key
        assert accepts(info), key
        assert info.is_required() or re.sub(r"^methods\.\w+", "methods.*", key) in ADDED, f"{key} has a default outside of params.yaml"


def test_a_configuration_goes_to_another_process() -> None:
    said = config.load(["--method", "hybrid_4", "--methods.hybrid_4.lr", "0.5", "--data.forget.count", "3"])
    there = pickle.loads(pickle.dumps(said))
    assert there == said
    assert there.recipe() == said.recipe()
