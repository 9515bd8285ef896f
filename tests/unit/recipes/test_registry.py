"""Methods by name: from the package, a decorator, an entry point, a `package.module:function`."""

import inspect
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from lethe._util import plugins
from lethe._util.errors import UserError
from lethe.config import loader as config
from lethe.config.describe import accepts
from lethe.config.loader import Config
from lethe.config.method_schema import method_section
from lethe.config.source_map import Layer
from lethe.pipeline.method_list import listing
from lethe.recipes import registry
from lethe.recipes.optimizers import SGD
from lethe.recipes.ordering import Together
from lethe.recipes.paper_methods import PAPER_METHODS
from lethe.recipes.parameters import Epochs
from lethe.recipes.recipe import Phase, Recipe, Term
from lethe.recipes.registry import find_method, method_names, register_method, registered_names
from lethe.recipes.schedules import Constant
from lethe.recipes.training import Training
from lethe.workspace.plan import plan, planned_results
from lethe.workspace.run_names import RunId
from support.project import ROOT

PARAMS = ROOT / "params.yaml"
OUTSIDE = '''
from typing import Annotated
from pydantic import Field
from lethe.recipes.ordering import Together
from lethe.recipes.parameters import Epochs, Scale
from lethe.recipes.recipe import Phase, Recipe, Term
from lethe.recipes.optimizers import SGD
from lethe.recipes.schedules import Constant


def joint(*, epochs: Epochs = 3, scale: Scale = -0.1, warmth: Annotated[float, Field(gt=0, description="of the start")] = 2.0) -> Recipe:
    """One step on a retain and a forget batch together."""
    terms = (Term("retain"), Term("forget", weight=scale))
    return (Phase("joint", epochs, terms, 16, Constant(0.01 * warmth), Together(), optimizer=SGD(0.9, 0.0)),)
'''


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A module with a method, in the current folder, that the package does not know."""
    (tmp_path / "their_methods.py").write_text(OUTSIDE)
    monkeypatch.chdir(tmp_path)
    yield "their_methods:joint"
    sys.modules.pop("their_methods", None)
    method_section.cache_clear()


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test registers is gone after it."""
    method_names()
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
    yield
    method_section.cache_clear()


def test_the_reports_methods_and_the_chain_are_built_in() -> None:
    assert registered_names(chains=False)[: len(PAPER_METHODS)] == list(PAPER_METHODS)
    assert {*registered_names()} - {*registered_names(chains=False)} == {"as_run"}
    for name in registered_names():
        method = find_method(name)
        assert method.source and method.summary and method.chain == (name == "as_run")


def test_a_word_means_the_same_in_every_method() -> None:
    fields: dict[str, Any] = {}
    for name in registered_names():
        for word, info in method_section(name).model_fields.items():
            meaning = (info.annotation, info.description, accepts(info), info.is_required())
            assert fields.setdefault(word, meaning) == meaning, (name, word)
    assert len(fields) > 40


def test_arguments_are_declared_once() -> None:
    """Each built-in method takes its numbers by keyword, without a default: numbers are in params.yaml. One that an earlier params.yaml
    lacks has the default under which that file means what it meant."""
    later = {"pull_on": "loss", "fade": 0.0, "ascent_limit": 0.0, "end_at": "last"}
    for name in registered_names():
        training, *own = inspect.signature(find_method(name).function).parameters.values()
        assert training.annotation is Training
        assert own and all(each.kind is each.KEYWORD_ONLY for each in own)
        assert {each.name: each.default for each in own if each.default is not each.empty}.items() <= later.items()


@pytest.mark.usefixtures("clean")
def test_a_decorated_method_with_words_of_its_own(tmp_path: Path) -> None:
    @register_method(source="arXiv:2302.09880")
    def mine(
        training: Training,
        *,
        rounds: Annotated[int, Field(ge=1, description="epochs")],
        kind: Annotated[Literal["a", "b"], Field(description="which")] = "b",
        pair: tuple[str, ...] = ("x", "y"),
    ) -> Recipe:
        """Mine."""
        return (training.first(f"{kind}{','.join(pair)}", rounds, (Term("retain"),)),)

    assert "mine" in method_names()
    words = {"lr": "0.1", "lr_schedule": "constant", "momentum": "0", "weight_decay": "0", "batch_size": "4", "trains": "all"}
    words |= {"batchnorm": "train", "keep": "last", "rounds": "2"}
    typed = ["--method", "mine", *(part for word, value in words.items() for part in (f"--methods.mine.{word}", value))]
    loaded = config.load(typed, params=PARAMS)
    (phase,) = loaded.recipe()
    assert isinstance(phase, Phase)
    assert (phase.name, phase.epochs, phase.lr) == ("bx,y", 2, Constant(0.1))
    assert config.load([*typed, "--methods.mine.pair", "u,v", "--methods.mine.kind=a"], params=PARAMS).recipe()[0].name == "au,v"
    for more, says in (
        (("--methods.mine.kind", "c"), "methods.mine.kind is c (command line); it takes a, b"),
        (("--methods.mine.round", "3"), "methods.mine.round is unknown (command line); nearest: methods.mine.rounds"),
    ):
        with pytest.raises(UserError) as refused:
            config.load([*typed, *more], params=PARAMS)
        assert str(refused.value) == says
    with pytest.raises(UserError, match=r"methods\.mine\.rounds is missing \(params\.yaml\); it takes an integer >= 1"):
        config.load(typed[:-2], params=PARAMS)
    assert pickle.loads(pickle.dumps(loaded)) == loaded


@pytest.mark.usefixtures("clean")
def test_two_functions_of_one_name_are_refused() -> None:
    @register_method()
    def mine(*, epochs: Epochs = 1) -> Recipe:
        return ()

    register_method(name="mine")(mine)  # the same function again
    with pytest.raises(UserError, match=r"method mine is registered already, by .*test_registry:.*mine"):
        register_method(name="mine")(lambda: ())
    with pytest.raises(UserError, match=r"method 'a/b': a name takes letters, digits, - and _"):
        register_method(name="a/b")(mine)
    with pytest.raises(UserError, match=r"method 'retrained': retrained is reserved for what this program makes"):
        register_method(name="retrained")(mine)


@pytest.mark.usefixtures("clean")
@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda epochs: (), "method wrong: argument epochs has no annotation; it takes one, such as epochs: Annotated"),
        (lambda *epochs: (), "method wrong: argument *epochs is not a keyword argument; a method takes only these"),
    ],
)
def test_a_method_that_can_not_be_configured_is_named(function: Any, says: str) -> None:
    register_method(name="wrong")(function)
    with pytest.raises(UserError) as refused:
        config.load(["--method", "wrong"], params=PARAMS)
    assert str(refused.value).startswith(says)


@pytest.mark.usefixtures("clean")
def test_a_type_that_no_key_can_hold_is_named() -> None:
    @register_method()
    def wrong(*, start: bytes = b"") -> Recipe:
        return ()

    with pytest.raises(UserError, match=r"^method wrong: argument start is <class 'bytes'>; it takes a number, text, a choice or names$"):
        config.load(["--method", "wrong"], params=PARAMS)


def expected(epochs: int, scale: float, warmth: float) -> Recipe:
    terms = (Term("retain"), Term("forget", weight=scale))
    return (Phase("joint", epochs, terms, 16, Constant(0.01 * warmth), Together(), optimizer=SGD(0.9, 0.0)),)


def test_a_function_of_another_package_on_the_command_line(outside: str) -> None:
    plain = config.load(["--method", outside], params=PARAMS)
    assert (plain.method, plain.like["joint"], plain.recipe()) == ("joint", outside, expected(3, -0.1, 2.0))
    assert plain.given == {"methods.joint.like": outside, "method": "joint"}
    own = config.load([f"--method={outside}", "--methods.joint.epochs", "5", "--methods.joint.warmth=3"], params=PARAMS)
    assert own.recipe() == expected(5, -0.1, 3.0)
    assert own.resolved()["methods.joint.epochs"] == 5
    named = config.load(["--method", "gentle", "--methods.gentle.like", outside, "--methods.gentle.scale=-0.01"], params=PARAMS)
    assert named.recipe() == expected(3, -0.01, 2.0)
    assert pickle.loads(pickle.dumps(named)) == named
    assert not named.chain


def test_a_function_of_another_package_in_params(outside: str, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    lines = f"methods:\n  theirs: {{like: '{outside}', epochs: 4}}\n  softer: {{like: theirs, scale: -0.01}}\n"
    params.write_text(PARAMS.read_text().replace("methods:\n", lines, 1))
    loaded = config.load(["--method", "softer"], params=params)
    assert loaded.recipe() == expected(4, -0.01, 2.0)
    assert loaded.as_json().count(outside) == 2
    space = ["--search.spaces.theirs.warmth.low", "1", "--search.spaces.theirs.warmth.high", "2", "--search.method", "theirs"]
    assert set(config.load(space, params=params).spaces["theirs"]) == {"warmth"}


def test_a_workspace_that_remembers_a_function_takes_it_again(outside: str, tmp_path: Path) -> None:
    """With the arguments that it remembers; so a repeated command resumes."""
    layer = Layer("settings.yaml", {"methods.joint.like": outside, "methods.joint.scale": -0.3})
    loaded = config.load(["--method", outside, "--run.workspace", str(tmp_path)], params=PARAMS, settings=lambda _: layer)
    assert (loaded.method, loaded.methods["joint"].model_dump()["scale"]) == ("joint", -0.3)


def remembering(words: str) -> Config:
    """What a command reads on a workspace that remembers a function whose code is gone."""
    layer = Layer("settings.yaml", {"methods.joint.like": "gone:joint", "methods.joint.scale": -0.3})
    return config.load(words.split(), params=PARAMS, settings=lambda _: layer)


def test_a_command_that_does_not_run_a_remembered_function_does_without_its_code() -> None:
    other = remembering("--method lethe --methods.lethe.weight 1")
    assert other.methods["lethe"].model_dump()["weight"] == 1
    assert pickle.loads(pickle.dumps(other)) == other
    own = remembering("--method joint")  # as report, evaluate and erase read it
    assert planned_results(own) == (RunId("joint"),)
    assert listing(own, ["joint"]) == "joint: gone:joint, which the current folder and PYTHONPATH do not have"


@pytest.mark.parametrize("words", ["--methods.joint.scale -1", "--methods.joint.epochs 1", "--method gone:joint", "--methods.a.like joint"])
def test_a_command_that_says_something_of_a_remembered_function_needs_its_code(words: str) -> None:
    with pytest.raises(UserError, match=r"^method is 'gone:joint': ModuleNotFoundError: .* and PYTHONPATH have no gone$"):
        remembering(words)


def test_a_remembered_function_can_be_run_with_its_code_only() -> None:
    with pytest.raises(UserError, match="method is 'gone:joint': ModuleNotFoundError"):
        plan(remembering("--method joint"))


def test_a_search_takes_a_function_with_a_space(outside: str) -> None:
    words = ["--search.method", outside]
    assert config.load(words, params=PARAMS).search.method == "joint"  # `search adopt` needs no space
    space = ["--search.spaces.joint.scale.low", "-1", "--search.spaces.joint.scale.high", "-0.1"]
    assert config.load([*words, *space], params=PARAMS).search.method == "joint"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("--method their_methods:nothing", "method is 'their_methods:nothing': AttributeError: "),
        ("--method nowhere:joint", "method is 'nowhere:joint': ModuleNotFoundError: No module named 'nowhere'"),
        ("--method their_methods:OUTSIDE", "method is 'their_methods:OUTSIDE': a str, not a function"),
        (
            "--method their_methods:joint --methods.joint.epochs -1",
            "methods.joint.epochs is -1 (command line); it takes an integer >= 0",
        ),
        (
            "--method their_methods:joint --methods.joint.warmt 1",
            "methods.joint.warmt is unknown (command line); nearest: methods.joint.warmth",
        ),
        (
            "--method their_methods:hybrid_4",
            "method is their_methods:hybrid_4 (command line); a method hybrid_4 exists, so give it another name: "
            "--method <name> --methods.<name>.like their_methods:hybrid_4",
        ),
    ],
)
def test_what_is_wrong_with_a_function_is_named(typed: str, says: str, outside: str, tmp_path: Path) -> None:
    (tmp_path / "their_methods.py").write_text(OUTSIDE + "\nOUTSIDE = 'text'\n")
    with pytest.raises(UserError) as refused:
        config.load(typed.split(" "), params=PARAMS)
    assert str(refused.value).startswith(says)
    assert "\n" not in str(refused.value)


def test_an_installed_package_brings_a_method(outside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point of the group `lethe.methods`; its module is imported when it is used."""
    about = tmp_path / "theirs-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[lethe.methods]\nbrought = {outside}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "brought" in method_names()
    assert plugins.installed(registry.GROUP)["brought"].value == outside
    assert "their_methods" not in sys.modules
    assert config.load(["--method", "brought", "--methods.brought.epochs", "6"], params=PARAMS).recipe() == expected(6, -0.1, 2.0)
    assert config.load(["--method", "x", "--methods.x.like", "brought"], params=PARAMS).recipe() == expected(3, -0.1, 2.0)


def test_shared_words_keep_their_range_outside(outside: str) -> None:
    fields = method_section(outside).model_fields
    own = method_section("model_4").model_fields
    assert (accepts(fields["epochs"]), fields["epochs"].description) == (accepts(own["epochs"]), own["epochs"].description)


def test_the_description_has_no_sections() -> None:
    for name in registered_names():
        description = find_method(name).description
        assert description and not {"Args:", "Returns:", "Raises:"} & set(description.split("\n")), name
