"""The words: orders spell, schedules go from here to there, a selection fits the model or says what would."""

import doctest
import math
import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import Module

from lethe._util.errors import UserError
from lethe.models import architectures as model
from lethe.recipes import ordering as order
from lethe.recipes import recipe
from lethe.recipes import schedules as schedule
from lethe.recipes.optimizers import SGD
from lethe.recipes.ordering import Ahead, Alongside, Alternate, Every, First, InTurn, Order, Together, order_text, shorten
from lethe.recipes.recipe import Phase, Term
from lethe.recipes.schedules import Constant, Cosine, Drops, OneCycle, Ramp, Schedule
from lethe.recipes.trainable import ALL, Layers, Stages

# --- orders -----------------------------------------------------------------------------------------------------------


def spells(order: Order, word: str, *, epoch: int = 0, **lengths: int) -> None:
    assert order_text(order, epoch, **lengths) == word, f"{order} of {lengths} in epoch {epoch}"


WORDS: list[tuple[Order, dict[str, int], str]] = [
    (InTurn(), {"R": 4, "F": 2}, "R R R R F F"),
    (InTurn(), {"F": 1, "R": 2}, "F R R"),
    (InTurn(), {"R": 3}, "R R R"),
    (InTurn(), {"R": 1, "F": 1, "T": 1}, "R F T"),
    (Alternate(), {"R": 4, "F": 2}, "R F R F"),
    (Alternate(), {"R": 2, "F": 4}, "R F R F"),
    (Alternate(), {"R": 1, "F": 1}, "R F"),
    (Alternate(), {"R": 3, "F": 0}, ""),
    (Alternate(2), {"R": 3, "F": 5}, "R F F R F F"),  # a turn that can't be had whole is not begun
    (Alternate(2), {"R": 3, "F": 1}, ""),
    (Alternate(2, "longest"), {"R": 5, "F": 4}, "R F F R F F R R R"),
    (Alternate(2, "longest"), {"R": 3, "F": 3}, "R F F R F R"),
    (Alternate(2, "longest"), {"R": 1, "F": 4}, "R F F F F"),
    (Alternate(1, "longest"), {"R": 0, "F": 2}, "F F"),
    (Together(), {"R": 3, "F": 2}, "RF RF RF"),
    (Together(), {"R": 2, "F": 3}, "RF RF RF"),
    (Together(cycle=False), {"R": 3, "F": 2}, "RF RF R"),
    (Together(cycle=False), {"R": 2, "F": 3}, "RF RF F"),
    (Alongside(), {"R": 3, "F": 2}, "RF RF RF"),
    (Alongside(), {"R": 2, "F": 3}, "RF RF"),
    (Alongside(), {"R": 2, "F": 0}, "R R"),
    (Alongside(cycle=False), {"R": 3, "F": 2}, "RF RF R"),
    (Alongside(cycle=False), {"R": 2, "F": 3}, "RF RF"),
    (Alongside(cycle=False), {"R": 0, "F": 3}, ""),
    (Ahead(5), {"R": 6, "F": 1}, "F R R R R R F R"),
    (Ahead(1), {"R": 2, "F": 3}, "F R F R"),
    (Every(2, Alternate(2, "longest")), {"R": 3, "F": 2}, "R F F R R"),
    (First(3, Alternate()), {"R": 4, "F": 4}, "R F R"),
    (First(9, InTurn()), {"R": 2}, "R R"),
]


@pytest.mark.parametrize(("order", "lengths", "word"), WORDS, ids=[f"{o!r} of {n}" for o, n, _ in WORDS])
def test_words(order: Order, lengths: dict[str, int], word: str) -> None:
    spells(order, word, **lengths)


@pytest.mark.parametrize(("k", "repaired"), [(1, [0, 1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [2, 5]), (6, [5]), (7, []), (0, [])])
def test_a_repair_stands_behind_every_kth_epoch(k: int, repaired: list[int]) -> None:
    for epoch in range(6):
        spells(Every(k, Alternate(2, "longest")), "R F R R" + " R R R" * (epoch in repaired), epoch=epoch, R=3, F=1)


LENGTH = st.integers(0, 60)
RATIO = st.integers(1, 5)


@settings(deadline=None)
@given(r=LENGTH, f=LENGTH, epoch=st.integers(0, 9), ratio=RATIO, k=st.integers(0, 4))
def test_an_order_spends_every_batch_as_often_as_it_says(r: int, f: int, epoch: int, ratio: int, k: int) -> None:
    def spent(order: Order) -> tuple[int, int]:
        word = "".join(order({"R": r, "F": f}, epoch))
        return word.count("R"), word.count("F")

    turns = min(r, f // ratio)
    assert spent(InTurn()) == (r, f)
    assert spent(Alternate(ratio)) == (turns, turns * ratio)
    assert spent(Alternate(ratio, "longest")) == (r, f)
    assert spent(Together(cycle=False)) == (r, f)
    assert spent(Together()) == (max(r, f), max(r, f))
    assert spent(Alongside()) == (r, r if f else 0)
    assert spent(Alongside(cycle=False)) == (r, min(r, f))
    repairs = r if k and (epoch + 1) % k == 0 else 0
    assert spent(Every(k, InTurn())) == (r + repairs, f)


@settings(deadline=None)
@given(r=LENGTH, f=LENGTH, ratio=RATIO)
def test_alternating_keeps_its_ratio_from_the_start(r: int, f: int, ratio: int) -> None:
    """Behind any beginning, the other stream is no more than a turn ahead or behind of `ratio` times the leading one."""
    for until in ("shortest", "longest"):
        led = other = 0
        for letter in Alternate(ratio, until)({"R": r, "F": f}, 0):
            led, other = led + (letter == "R"), other + (letter == "F")
            if led < r and other < f:
                assert ratio * (led - 1) <= other <= ratio * led


@settings(deadline=None)
@given(word=st.lists(st.sampled_from(["R", "F", "RF"]), max_size=40))
def test_the_short_form_expands_back(word: list[str]) -> None:
    assert expanded(shorten(iter(word))) == word


@settings(deadline=None)
@given(r=st.integers(0, 400), f=st.integers(0, 60), ratio=RATIO)
def test_the_short_form_of_an_order_is_short(r: int, f: int, ratio: int) -> None:
    word = list(Every(1, Alternate(ratio, "longest"))({"R": r, "F": f}, 0))
    assert expanded(shorten(iter(word))) == word
    if ratio <= 3:  # longer turns than four letters are written out
        assert len(shorten(iter(word))) < 60


def expanded(text: str) -> list[str]:
    """ "2x(R F) 3xR" -> R F R F R R R"""
    word: list[str] = []
    for times, unit, single, letter in re.findall(r"(\d+)x\(([^)]*)\)|(\d+x)?([A-Z]+)", text):
        if unit:
            word += unit.split() * int(times)
        else:
            word += [letter] * int(single.removesuffix("x") or 1)
    return word


def test_short_forms_of_the_report() -> None:
    lengths = {"R": 352, "F": 40}
    assert shorten(InTurn()(lengths, 0)) == "352xR 40xF"
    assert shorten(Alternate()(lengths, 0)) == "40x(R F)"
    assert shorten(Every(10, Alternate(2, "longest"))(lengths, 0)) == "20x(R F F) 332xR"
    assert shorten(Every(10, Alternate(2, "longest"))(lengths, 9)) == "20x(R F F) 684xR"
    assert shorten(iter([])) == ""


# --- schedules --------------------------------------------------------------------------------------------------------

T = st.floats(0, 1, exclude_max=True)
RAMPS = [
    *(Ramp(-0.8, "power", power) for power in (0.5, 1.0, 2.0, 5.0)),
    *(Ramp(-0.8, "exponential", power) for power in (0.1, 1.0, 5.0)),
    Ramp(-0.8),
    Ramp(-0.8, "cosine"),
]
ENDS: list[tuple[Schedule, float, float]] = [  # at 0, and towards 1
    (Constant(0.3), 0.3, 0.3),
    (Cosine(0.01), 0.01, 0.0),
    (OneCycle(0.1), 0.004, 0.1 / 250_000),
    (Drops(0.1), 0.1, 0.001),
    *((ramp, 0.0, -0.8) for ramp in RAMPS),
]


@pytest.mark.parametrize(("said", "begins", "ends"), ENDS, ids=[repr(said) for said, _, _ in ENDS])
def test_a_schedule_goes_from_here_to_there(said: Schedule, begins: float, ends: float) -> None:
    assert said(0.0) == pytest.approx(begins)
    assert said(1 - 1e-9) == pytest.approx(ends, abs=1e-7)


@settings(deadline=None)
@given(first=T, second=T)
def test_schedules_only_go_one_way(first: float, second: float) -> None:
    early, late = sorted([first, second])
    assert Cosine(0.1)(early) >= Cosine(0.1)(late)
    for ramp in RAMPS:
        assert 0 >= ramp(early) >= ramp(late) - 1e-15 >= -0.8 - 1e-12
    warm = OneCycle(0.1, 0.3)
    if late <= 0.3:
        assert warm(early) <= warm(late) + 1e-15
    if early >= 0.3:
        assert warm(early) >= warm(late) - 1e-15
    assert 0.1 / 250_000 - 1e-15 <= warm(early) <= 0.1 + 1e-15


def test_one_cycle_has_its_peak_where_it_says() -> None:
    for warm in (0.1, 0.3, 0.5):
        steps = [OneCycle(0.2, warm)(step / 100) for step in range(100)]
        assert max(steps) == pytest.approx(0.2)
        assert steps.index(max(steps)) == round(100 * warm)
        assert max(abs(a - b) for a, b in pairwise(steps)) < 0.2 * math.pi / 2 / (100 * warm) * 1.01  # no jump


def test_shapes_of_the_ramp() -> None:
    half = {shape: Ramp(-1.0, shape, 2.0)(0.5) for shape in ("linear", "power", "exponential", "cosine")}  # type: ignore[arg-type]
    assert half == pytest.approx({"linear": -0.5, "power": -0.25, "exponential": -math.expm1(1) / math.expm1(2), "cosine": -0.5})
    assert Ramp(-1.0, "power", 1.0)(0.3) == Ramp(-1.0)(0.3)


# --- who may move -----------------------------------------------------------------------------------------------------

BLOCKS = "layer1, layer2, layer3, layer4, fc"


@pytest.fixture(scope="module")
def network() -> Module:
    return model.build("convnet", 10, 0)


def test_layers_are_whole_names(network: Module) -> None:
    everything = {name for name, _ in network.named_parameters()}
    assert ALL(network, 0.0) == everything
    assert Layers(("fc",))(network, 0.0) == {"fc.weight", "fc.bias"}
    assert Layers(("fc.bias",))(network, 0.0) == {"fc.bias"}
    assert Layers(("layer1.0", "fc"))(network, 0.5) == {"layer1.0.weight", "fc.weight", "fc.bias"}
    assert Layers(("fc", "all"))(network, 0.0) == everything


@pytest.mark.parametrize("name", ["layer", "layer5", "f", "fc.", "fc.weigh", "", "ALL", "layer1.7"])
def test_a_name_that_matches_nothing_lists_the_blocks(network: Module, name: str) -> None:
    for select in (Layers(("fc", name)), Stages(((0.0, Layers((name,))),)), Stages(((0.0, ALL), (0.5, Layers((name,)))))):
        with pytest.raises(UserError) as raised:
            select(network, 0.7)
        roles = "all, head, last_block, early, a share of depth such as 0.25"
        assert str(raised.value) == f"no layer is called {name!r}; this architecture has {BLOCKS} (or: {roles})"


def test_stages_change_when_their_time_has_come(network: Module) -> None:
    head, both = Layers(("fc",)), Layers(("fc", "layer1"))
    staged = Stages(((0.0, head), (0.3, both)))
    for epochs, first in ((10, 3), (50, 15), (7, 3), (3, 1), (1, 1)):  # 30 % of 7 epochs is past epoch 2
        chosen = [staged(network, epoch / epochs) for epoch in range(epochs)]
        assert chosen == [head(network, 0.0)] * min(first, epochs) + [both(network, 0.0)] * (epochs - first)


def test_before_the_first_stage_nobody_trains(network: Module) -> None:
    assert Stages(((0.5, ALL),))(network, 0.4) == frozenset()


# --- terms and phases -------------------------------------------------------------------------------------------------


def test_a_phase_knows_its_streams_and_scale() -> None:
    terms = (Term("retain"), Term("forget", weight=Ramp(-0.5)), Term("forget", weight=0.1))
    phase = Phase("p", 2, terms, 8, order=Alternate(), optimizer=SGD(0.9, 0.0))
    assert phase.streams == {"R": "retain", "F": "forget"}
    assert phase.scale(0.5) == -0.25
    assert phase.batch_order({"R": 2, "F": 2}, 0) == ["R", "F", "R", "F"]
    assert Phase("q", 1, (Term("train"),), 8).scale(0.0) is None
    assert recipe.epochs((phase, phase)) == 4


def test_a_recipe_is_a_value() -> None:
    one, other = (Phase("p", 2, (Term("retain"),), 8, lr=Cosine(rate)) for rate in (0.1, 0.2))
    assert one == Phase("p", 2, (Term("retain"),), 8, lr=Cosine(0.1)) != other
    assert len({one, other, eval(repr(one), recipe.names())}) == 2


# --- the examples in the docstrings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [order, schedule], ids=lambda module: module.__name__)
def test_the_examples_are_true(module: object) -> None:
    failed, tried = doctest.testmod(module)  # type: ignore[arg-type]
    assert failed == 0
    assert tried >= 4
