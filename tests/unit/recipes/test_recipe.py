"""A recipe's repr reads back as the same value, also what an earlier version wrote; no code is executed."""

from dataclasses import dataclass

import pytest

from lethe.config import loader as config
from lethe.recipes import recipe
from lethe.recipes.optimizers import SGD
from lethe.recipes.ordering import Alternate, Every, InTurn, Together
from lethe.recipes.recipe import Augment, Phase, Term, parse, same
from lethe.recipes.registry import registered_names
from lethe.recipes.schedules import Constant, Cosine, OneCycle, Ramp
from lethe.recipes.trainable import Layers, Stages
from lethe.recipes.weight_edits import Reinitialise
from support.project import ROOT

PARAMS = ROOT / "params.yaml"


@pytest.mark.parametrize("method", registered_names(chains=False))
def test_the_recipe_of_every_method_reads_back(method: str) -> None:
    steps = config.load(["--method", method], params=PARAMS).recipe()
    assert parse(repr(steps)) == steps
    assert hash(parse(repr(steps))) == hash(steps)


def test_the_recipes_of_references_and_of_the_chain_read_back() -> None:
    loaded = config.load(["--method", "as_run"], params=PARAMS)
    for steps in (*map(loaded.reference_recipe, ("original", "retrained")), *loaded.chain_recipes().values()):
        assert parse(repr(steps)) == steps


@pytest.mark.parametrize(
    "value",
    [
        (Reinitialise(), Phase("a", 1, (Term("retain"),), 8, optimizer=SGD(0.9, 5e-4), augment=Augment(2, True))),
        Stages(((0.0, Layers(("fc",))), (0.5, Layers(("all",))))),
        Every(3, Alternate(2, "longest")),
        Together(cycle=False),
        Ramp(-0.5, "exponential", 2.0),
        OneCycle(0.1),
        Term("forget", weight=Ramp(-1.0)),
        (),
        -0.5,
        None,
    ],
    ids=repr,
)
def test_every_value_reads_back(value: object) -> None:
    assert parse(repr(value)) == value


def test_fields_added_since_have_their_defaults() -> None:
    text = "Phase(name='a', epochs=2, terms=(Term(stream='retain'),), batch_size=8)"
    assert parse(text) == Phase("a", 2, (Term("retain"),), 8)
    whole = repr(Phase("a", 2, (Term("retain"),), 8))
    assert text != whole
    assert same(text, whole)
    assert not same(text, whole.replace("epochs=2", "epochs=3"))


def test_a_renamed_class_is_known_by_its_former_name(monkeypatch: pytest.MonkeyPatch) -> None:
    written = "Phase(name='a', epochs=1, terms=(), batch_size=8, order=OneAfterTheOther(), lr=Fixed(value=0.1))"
    with pytest.raises(ValueError, match="not a recipe: 'OneAfterTheOther'"):
        parse(written)
    monkeypatch.setattr(recipe, "ALIASES", {"OneAfterTheOther": "InTurn", "Fixed": "Constant"})
    assert parse(written) == Phase("a", 1, (), 8, Constant(0.1), InTurn())
    assert same(written, repr(Phase("a", 1, (), 8, Constant(0.1), InTurn())))


@dataclass(frozen=True)
class Foreign:
    """A loss of another package."""


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "Phase.__init__",
        "Term('retain')",  # no repr: its fields have no names
        "Term(stream='retain', **{})",
        "[Term(stream='retain') for _ in 'ab']",
        "(lambda: 1)()",
        "Constant(value=open)",
        "Constant(value=1 + open('x'))",
        "Constant(wrong=1)",
        "Foreign()",
        "Term(",
        "",
        "(" * 300 + ")" * 300,
    ],
    ids=lambda text: text[:40] or "empty",
)
def test_what_is_not_a_recipe_is_refused_and_not_executed(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builtins.open", lambda *_: pytest.fail("executed"))
    with pytest.raises(ValueError, match=r"not a recipe|malformed node"):
        parse(text)


def test_texts_that_are_not_recipes_are_compared_as_they_are() -> None:
    assert same(repr(Foreign()), repr(Foreign()))
    assert not same(repr(Foreign()), repr(Cosine(0.1)))
