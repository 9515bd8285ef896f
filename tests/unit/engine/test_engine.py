"""The engine and the batches it is fed: what it says, how time passes, what stops it, and what leaves no trace."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import Module
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from lethe._util.errors import Diverged
from lethe.data.device_data import PART, Batch, Data
from lethe.engine import engine
from lethe.engine.engine import Epoch
from lethe.engine.frozen_references import FrozenReferences
from lethe.engine.options import RunOptions
from lethe.engine.progress import Progress
from lethe.engine.run_state import State
from lethe.evaluation import inference as predict
from lethe.models import architectures as model
from lethe.models.device import Compute
from lethe.recipes.losses import CrossEntropy
from lethe.recipes.optimizers import SGD
from lethe.recipes.ordering import Alternate, Every, Together
from lethe.recipes.recipe import Augment, ByLoss, Phase, Recipe, Term, last_epoch
from lethe.recipes.schedules import Constant, Cosine, OneCycle, Ramp
from lethe.recipes.trainable import Layers
from lethe.recipes.weight_edits import Reinitialise
from lethe.testing.small_runs import attempt, boom_at, copied, images, moved, network, small, watched

torch.set_num_threads(1)

BOTH = (Term("retain"), Term("forget", weight=-0.1))


def phase(**changes: Any) -> Phase:
    """Three epochs on retain, unless `changes` says otherwise."""
    said = {
        "name": "only",
        "epochs": 3,
        "terms": (Term("retain"),),
        "batch_size": 8,
        "lr": Constant(0.02),
        "optimizer": SGD(0.9, 0.0005),
    }
    return Phase(**(said | changes))  # type: ignore[arg-type]


def ran(steps: Recipe, student: Module, data: Data, state: State | None = None, **options: Any) -> list[Epoch]:
    return list(engine.run(steps, student, data, RunOptions(**options), state=state))


@pytest.fixture(scope="module")
def data() -> Data:
    return images(retain=38)  # 38 retain images are 5 batches of 8, 19 forget images 3


# --- what it says -----------------------------------------------------------------------------------------------------


def test_every_epoch_and_edit_is_a_record(data: Data) -> None:
    steps: Recipe = (
        phase(
            name="hybrid",
            terms=(Term("retain"), Term("forget", weight=Ramp(-0.9))),
            lr=Cosine(0.1),
            order=Every(2, Alternate(2, "longest")),
            trains=Layers(("fc",)),
        ),
        Reinitialise(),
        phase(name="retain", epochs=2),
    )
    student = network()
    everything = sum(p.numel() for p in student.parameters())
    head = student.get_submodule("fc").weight.numel() + student.get_submodule("fc").bias.numel()  # type: ignore[union-attr, operator]
    seen = [
        (e.global_epoch, e.phase, e.epoch, e.progress, e.learning_rate, e.scale, e.steps, e.images, e.trains)
        for e in ran(steps, student, data)
    ]
    assert seen == [
        (0, "start", 0, 0.0, None, None, 0, 0, 0),
        (1, "hybrid", 0, 0.0, 0.1, 0.0, 8, 57, head),
        (2, "hybrid", 1, 1 / 3, pytest.approx(0.075), pytest.approx(-0.3), 13, 95, head),
        (3, "hybrid", 2, 2 / 3, pytest.approx(0.025), pytest.approx(-0.6), 8, 57, head),
        (4, "reinitialise", 0, 0.0, None, None, 0, 0, 0),
        (5, "retain", 0, 0.0, 0.02, None, 5, 38, everything),
        (6, "retain", 1, 0.5, 0.02, None, 5, 38, everything),
    ]


def test_progress_counts_edits_among_the_epochs(data: Data, capsys: pytest.CaptureFixture[str]) -> None:
    steps: Recipe = (Reinitialise(), phase(name="fine_tune_augmented", epochs=2))
    with Progress(steps, data, "ft") as progress:
        for epoch in ran(steps, network(), data):
            progress.show(epoch)
    header, *lines = capsys.readouterr().err.splitlines()
    at = header.index("  epoch"), header.index("  epoch") + len("  epoch")
    assert [line[slice(*at)].strip() for line in lines] == ["0/3", "1/3", "2/3", "3/3"]


@pytest.mark.parametrize(
    ("epochs", "seconds", "shown"),
    [
        (94, 0.5, [0, 1, 10, 19, 29, 38, 47, 57, 66, 76, 85, 94]),
        (12, 0.5, [0, 1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]),
        (3, 0.5, [0, 1, 2, 3]),
        (94, 25.0, [0, *range(1, 29, 3), 29, 32]),
        (15, 70.0, [*range(16)]),
    ],
)
def test_a_log_has_a_line_for_a_tenth_of_a_run_or_for_a_minute(
    data: Data, capsys: pytest.CaptureFixture[str], epochs: int, seconds: float, shown: list[int]
) -> None:
    with Progress((phase(epochs=epochs),), data, "ft") as progress:
        for number in range(epochs + 1):
            progress.show(Epoch(number, "ft", number, 0.0, steps=1, seconds=seconds if number else 0.0))
    _, *lines = capsys.readouterr().err.splitlines()
    numbers = [int(line[13:20].split("/")[0]) for line in lines]
    assert numbers[: len(shown)] == shown and numbers[-1] == epochs


def test_training_losses_are_means_by_stream(data: Data) -> None:
    student = network()
    plain = copy.deepcopy(student).train()
    record = ran((phase(epochs=1, terms=BOTH, lr=Constant(0.0)),), student, data, seed=4)[1]
    for stream in ("retain", "forget"):
        values = [cross_entropy(plain(batch.images_BCHW), batch.labels_B).item() for batch in data.batches(stream, 8, seed=4, number=0)]
        assert record.losses[stream] == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_the_training_loss_of_several_terms_is_what_is_minimised(data: Data) -> None:
    student, halves = network(), (Term("retain", weight=0.3), Term("retain", CrossEntropy(0.5), 0.2))
    plain = copy.deepcopy(student).train()
    record = ran((phase(epochs=1, terms=(*halves, Term("forget", weight=-0.1)), lr=Constant(0.0)),), student, data, seed=4)[1]
    values = {
        stream: [
            [cross_entropy(plain(batch.images_BCHW), batch.labels_B, label_smoothing=smoothing).item() for smoothing in (0.0, 0.5)]
            for batch in data.batches(stream, 8, seed=4, number=0)
        ]
        for stream in ("retain", "forget")
    }
    assert record.losses["retain"] == pytest.approx(sum(0.3 * one + 0.2 * two for one, two in values["retain"]) / len(values["retain"]))
    assert record.losses["forget"] == pytest.approx(sum(one for one, _ in values["forget"]) / len(values["forget"]))


def test_an_edit_writes_the_random_init(data: Data) -> None:
    student, random_init = network(0), network(1)
    steps: Recipe = (phase(), Reinitialise())
    records = ran(steps, student, data, random_init=random_init, evaluate=predict.evaluator(data, ["validation"]))
    assert not moved(random_init.state_dict(), student.state_dict())
    assert records[-1].metrics == predict.evaluator(data, ["validation"])(random_init)
    assert records[-1].metrics != records[-2].metrics
    assert records[-1].global_epoch == last_epoch(steps) and records[-2].global_epoch == last_epoch(steps[:1])


def test_evaluate_every(data: Data) -> None:
    measured = predict.evaluator(data, ["validation"])
    steps = (phase(name="a", epochs=5), phase(name="b", epochs=3, optimizer=None))
    records = ran(steps, network(), data, evaluate=measured, evaluate_every=2)
    assert [(e.phase, e.epoch) for e in records if e.metrics] == [("start", 0), ("a", 1), ("a", 3), ("a", 4), ("b", 1), ("b", 2)]
    every = ran(steps, network(), data, evaluate=measured)
    assert [e.metrics for e in records if e.metrics] == [every[e.global_epoch].metrics for e in records if e.metrics]


@pytest.mark.parametrize("augment", [None, Augment(2, flip=True)])
def test_batches_cut_ahead_are_the_same_in_the_same_order(data: Data, augment: Augment | None) -> None:
    ahead = replace(data, ahead=3)
    for number in range(3):
        plain = list(data.batches("retain", 7, 1, number, augment))
        for one, other in zip(plain, ahead.batches("retain", 7, 1, number, augment), strict=True):
            assert torch.equal(one.images_BCHW, other.images_BCHW) and torch.equal(one.labels_B, other.labels_B)
        first = next(ahead.batches("retain", 7, 1, number, augment))  # and stopped there, as Alternate does
        assert torch.equal(first.index_B, plain[0].index_B)


def test_a_run_on_batches_cut_ahead_is_the_same_run(data: Data) -> None:
    steps = (phase(epochs=2, terms=(Term("retain"), Term("forget", weight=-0.1)), order=Alternate()),)
    one, other = network(), network()
    ran(steps, one, data)
    ran(steps, other, replace(data, ahead=2))
    assert not moved(one.state_dict(), other.state_dict())


@pytest.mark.parametrize(
    ("asked", "device", "free", "held"),
    [
        ("auto", "cpu", 0, True),
        ("host", "cpu", 0, False),
        ("auto", "cuda", 300, True),
        ("auto", "cuda", 100, False),
        ("device", "cuda", 0, True),
    ],
)
def test_images_that_a_gpu_has_no_room_for_stay_on_the_host(
    asked: str, device: str, free: int, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 1000))
    assert Compute(torch.device(device), "float32", True, "").holds(100, asked) == held


def test_a_sample_stands_in_but_for_the_last_of_a_phase(data: Data) -> None:
    splits = ("retain", "forget", "validation")
    measured, sample = predict.evaluator(data, splits), predict.evaluator(data, splits, retain=7)
    steps = (phase(name="a", epochs=3), phase(name="b", epochs=2, optimizer=None))
    records = ran(steps, network(), data, evaluate=measured, evaluate_sample=sample)
    every = ran(steps, network(), data, evaluate=measured)
    exact = [e.metrics == whole.metrics for e, whole in zip(records, every, strict=True)]
    assert exact == [True, False, False, True, False, True]
    for e, whole in zip(records, every, strict=True):
        assert all(e.metrics[key] == whole.metrics[key] for key in whole.metrics if key.split(".")[0] in ("forget", "validation"))
        share = e.metrics["retain.accuracy"] * 7 / 100
        assert e.metrics == whole.metrics or share == pytest.approx(round(share)), "seven images"


@pytest.mark.parametrize("retain", [700, 5000])
def test_a_sample_of_all_retain_images_is_all_of_them_to_the_bit(retain: int) -> None:
    data, splits = images(retain=700), ("retain", "forget")
    assert predict.evaluator(data, splits, retain=retain)(network()) == predict.evaluator(data, splits)(network())


# --- how time passes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Noted(SGD):
    """SGD that notes the learning rate of every step."""

    rates: list[float] = field(default_factory=list, compare=False)

    def build(self, parameters: list[nn.Parameter]) -> Optimizer:
        optimizer = super().build(parameters)
        optimizer.register_step_pre_hook(lambda optimizer, *_: self.rates.append(optimizer.param_groups[0]["lr"]))
        return optimizer


def torchs(make: Callable[[Optimizer], Any], steps: int) -> list[float]:
    """Learning rates of so many steps under one of torch's schedulers."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_steps_once_an_epoch_as_torchs(data: Data) -> None:
    noted = Noted(0.9, 0.0)
    records = ran((phase(epochs=7, lr=Cosine(0.1), optimizer=noted),), network(), data)
    expected = torchs(lambda optimizer: CosineAnnealingLR(optimizer, T_max=7), 7)
    assert [e.learning_rate for e in records[1:]] == pytest.approx(expected)
    assert noted.rates == [e.learning_rate for e in records[1:] for _ in range(e.steps)]


def test_one_cycle_steps_per_batch_as_torchs(data: Data) -> None:
    noted = Noted(0.9, 0.0)
    ran((phase(epochs=20, lr=OneCycle(0.1), lr_steps="batch", trains=Layers(("fc",)), optimizer=noted),), network(), data)
    assert noted.rates == [OneCycle(0.1)((step // 5 + step % 5 / 5) / 20) for step in range(100)]
    expected = torchs(lambda optimizer: OneCycleLR(optimizer, max_lr=0.1, total_steps=100, cycle_momentum=False), 100)
    assert noted.rates[0] == pytest.approx(expected[0]) == pytest.approx(0.004)
    # torch's ends lie on the first, 30th and last step, ours on the fractions 0, 0.3 and 1: up to one step apart
    assert all(min(near) - 1e-9 <= rate <= max(near) + 1e-9 for rate, near in zip(noted.rates[1:], neighbours(expected), strict=True))
    pct = [step / 29 for step in range(30)]
    assert [OneCycle(0.1)(0.3 * share) for share in pct] == pytest.approx(expected[:30])
    assert [OneCycle(0.1)(0.3 + 0.7 * share / 70) for share in range(71)] == pytest.approx(expected[29:], abs=1e-9)


def neighbours(rates: list[float]) -> Iterator[list[float]]:
    for at in range(1, len(rates)):
        yield rates[at - 1 : at + 2]


def test_streams_begin_a_new_pass_every_epoch_and_where_they_go_on(data: Data) -> None:
    """Passes are counted over the whole run, by stream; a repair, and a stream used up too early, begin another."""
    order = Every(2, Alternate(2, "longest"))
    steps = (
        phase(name="a", epochs=2, terms=BOTH, order=order),
        phase(name="b", epochs=1, terms=BOTH, order=Together(), optimizer=None),
        phase(name="c", epochs=1, optimizer=None),
    )
    seen: dict[int, list[Tensor]] = {1: [], 2: []}  # by stream, told apart by its images
    retain = set(data.splits["retain"].tolist())

    def watch(batch: Batch, refs: FrozenReferences) -> None:
        seen[1 if int(batch.index_B[0]) in retain else 2].append(batch.index_B)

    state = State()
    ran(watched(steps, watch), network(), data, seed=9, state=state)
    expected = {
        1: [batch.index_B for number in range(5) for batch in data.batches("retain", 8, 9, number)],
        2: [batch.index_B for number in range(4) for batch in data.batches("forget", 8, 9, number)][:11],  # 3 + 3 + 5
    }
    assert state.passes == {"retain": 5, "forget": 4}
    for stream in (1, 2):
        assert [index.tolist() for index in seen[stream]] == [index.tolist() for index in expected[stream]]


def test_an_epoch_of_part_of_a_stream_is_followed_by_a_new_pass(data: Data) -> None:
    state = State()
    ran((phase(terms=BOTH, order=Alternate()),), network(), data, state=state)  # 3 pairs of 5 and 3
    assert state.passes == {"retain": 3, "forget": 3}


# --- steps on several streams at once ---------------------------------------------------------------------------------


def test_a_joint_step_sums_its_terms(data: Data) -> None:
    """NegGrad+: one step on both losses, the shorter stream cycled; as a plain loop, to the bit."""
    student, plain = network(), network()
    ran((phase(epochs=2, terms=BOTH, order=Together()),), student, data, seed=1)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.02, momentum=0.9, weight_decay=0.0005)
    plain.train()
    passes = count()
    for epoch in range(2):
        forget = iter([*data.batches("forget", 8, 1, next(passes)), *data.batches("forget", 8, 1, next(passes))])
        for retain, reverse in zip(data.batches("retain", 8, 1, epoch), forget, strict=False):
            optimizer.zero_grad(set_to_none=True)
            loss = cross_entropy(plain(retain.images_BCHW), retain.labels_B)
            loss = loss + -0.1 * cross_entropy(plain(reverse.images_BCHW), reverse.labels_B)
            loss.backward()
            optimizer.step()
    assert not moved(plain.state_dict(), student.state_dict())


def test_a_phase_that_goes_on_needs_a_running_optimizer(data: Data) -> None:
    with pytest.raises(ValueError, match="'lone' keeps the running optimizer, and no phase before it has one"):
        ran((phase(name="lone", optimizer=None),), network(), data)


def test_a_phase_that_keeps_its_best_epoch_needs_to_be_measured(data: Data) -> None:
    student, steps = network(), (phase(name="first"), phase(name="keeps", keep="best"))
    before, says = copied(student), "'keeps' keeps its epoch of highest validation.accuracy, which `evaluate` does not measure"
    several: list[dict[str, Any]] = [{}, {"evaluate": predict.evaluator(data, ["retain"])}]
    for options in several:
        with pytest.raises(ValueError, match=says):
            ran(steps, student, data, **options)
    assert not moved(before, student.state_dict())  # said before the first step
    once = iter([{"validation.accuracy": 50.0}])
    with pytest.raises(ValueError, match=says):
        ran(steps, student, data, evaluate=lambda model, data: next(once, {}))


def test_batchnorm_in_eval_mode_keeps_all_statistics(data: Data) -> None:
    student = network()
    before = copied(student)
    ran((phase(batchnorm="eval"),), student, data)
    assert moved(before, student.state_dict()) == {name for name, _ in student.named_parameters()}


# --- what stops it ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Poisoned:
    """Cross-entropy; `value` instead at one call."""

    call: int
    value: float
    calls: Iterator[int] = field(default_factory=count, compare=False)

    def __call__(self, logits_BC: Tensor, batch: Any, refs: Any) -> Tensor:
        loss = CrossEntropy()(logits_BC, batch, refs)
        return loss * self.value if next(self.calls) == self.call else loss


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_no_number_names_phase_epoch_step_and_stream(data: Data, value: float) -> None:
    poisoned = replace(BOTH[1], loss=Poisoned(3 + 1, value))  # the second forget batch of the second epoch
    steps = (phase(name="early", epochs=1), phase(name="late", terms=(BOTH[0], poisoned), order=Alternate()))
    state = State()
    with pytest.raises(Diverged, match=f"^phase late, epoch 1, step 3: the forget loss is (nan|{value}|{-value})$"):
        ran(steps, network(), data, state=state)
    assert (state.step, state.epoch, state.global_epoch) == (1, 1, 2)  # the last good epoch


def test_a_model_that_measures_no_number_is_refused(data: Data) -> None:
    values = iter([1.0, 1.0, math.nan])
    with pytest.raises(Diverged, match=r"^phase only, epoch 1: after its 5 steps own\.auc is nan$"):
        ran((phase(),), network(), data, evaluate=lambda model, data: {"validation.loss": 1.0, "own.auc": next(values)})


def test_a_rate_far_too_high_diverges(data: Data) -> None:
    with pytest.raises(Diverged, match=r"phase only, epoch 0, step [1-4]: the retain loss is"):
        ran((phase(lr=Constant(1e30)),), network(), data)


# --- keep the best ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Snapshot:
    """An edit that writes nothing and notes the weights it finds."""

    found: list[dict[str, Tensor]] = field(default_factory=list, compare=False)
    name: str = "snapshot"

    def __call__(self, model: Module, data: Any, refs: Any) -> None:
        self.found.append(copied(model))


@pytest.mark.parametrize(
    ("accuracies", "best"), [([50, 70, 60], 1), ([70, 60, 50], 0), ([50, 60, 70], 2), ([60, 60, 50], 0), ([0, 0, 0], 0)]
)
def test_a_phase_ends_on_a_copy_of_its_best_epoch(data: Data, accuracies: list[float], best: int) -> None:
    values = iter([99, 95, *accuracies, 97, 96, 10, 10])  # start, first phase, the phase that keeps; snapshot, the phase after it
    student, snapshot = network(), Snapshot()
    steps = (phase(name="first", epochs=1), phase(name="keeps", keep="best"), snapshot, phase(name="after", optimizer=None))
    behind = []
    for epoch in engine.run(steps, student, data, RunOptions(evaluate=lambda model, data: {"validation.accuracy": next(values)})):
        if epoch.phase == "keeps":
            behind.append(copied(student))
    assert not moved(behind[best], snapshot.found[0])
    assert all(moved(other, snapshot.found[0]) for number, other in enumerate(behind) if number != best)
    assert moved(snapshot.found[0], student.state_dict())  # the last phase went on from there, and keeps its last epoch


def test_a_weight_that_is_frozen_later_stands_still(data: Data) -> None:
    """It has had gradients and has momentum: a gradient of zero would let both momentum and decay move it."""
    student, snapshot = network(), Snapshot()
    steps = (phase(name="all"), snapshot, phase(name="head", trains=Layers(("fc",)), optimizer=None, batchnorm="eval"))
    ran(steps, student, data)
    assert moved(snapshot.found[0], student.state_dict()) == {"fc.weight", "fc.bias"}
    assert all(parameter.grad is None for parameter in student.parameters())


def test_the_best_is_measured_whatever_evaluate_every_says(data: Data) -> None:
    measured = predict.evaluator(data, ["validation"])
    student = network()
    records = ran((phase(epochs=5, lr=Constant(0.1), keep="best"),), student, data, evaluate=measured, evaluate_every=4)
    best = max(e.metrics["validation.accuracy"] for e in records[1:])
    assert measured(student)["validation.accuracy"] == best


# --- what leaves no trace ---------------------------------------------------------------------------------------------


class Dropping(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 16), nn.ReLU(), nn.Dropout(p), nn.Linear(16, 10))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.fc(images)
        return logits


def dropping(p: float = 0.5) -> Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Dropping(p).eval()


def test_dropout_follows_from_the_seed_and_the_callers_generator_is_left_alone(data: Data) -> None:
    ends = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        student = dropping()
        before = torch.random.get_rng_state()
        for epoch in engine.run((phase(),), student, data):
            assert torch.equal(torch.random.get_rng_state(), before), epoch.global_epoch
        ends.append(copied(student))
    assert not moved(*ends)
    still, other = dropping(0.0), dropping()
    ran((phase(),), still, data)
    ran((phase(),), other, data, seed=1)
    assert moved(ends[0], copied(still))
    assert moved(ends[0], copied(other))


def test_the_callers_generator_is_left_alone_by_an_exception(data: Data) -> None:
    before = torch.random.get_rng_state()
    with pytest.raises(Diverged):
        ran((phase(terms=(Term("retain", Poisoned(2, math.nan)),)),), dropping(), data)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_dropout_differs_from_epoch_to_epoch(data: Data) -> None:
    """The same image under the same mask would give the same loss."""
    lone = replace(data, splits={"retain": data.splits["retain"][:1]})
    losses = [e.losses["retain"] for e in ran((phase(lr=Constant(0.0)),), dropping(), lone)[1:]]
    assert len(set(losses)) == 3


def test_dropout_of_a_continued_run(data: Data, tmp_path: Path) -> None:
    steps = (phase(),)
    whole = dropping()
    ran(steps, whole, data, seed=2)
    attempt(watched(steps, boom_at(7)), tmp_path, data, dropping())
    student = dropping()
    attempt(steps, tmp_path, data, student)
    assert not moved(whole.state_dict(), student.state_dict())


def test_bfloat16_differs_from_float32_and_weights_stay_float32(data: Data) -> None:
    ends = {}
    for precision in ("float32", "bfloat16"):
        student = network()
        records = ran((phase(),), student, data, autocast=Compute(torch.device("cpu"), precision, False, "").autocast)
        ends[precision] = copied(student)
        assert all(math.isfinite(e.losses["retain"]) for e in records[1:])
    assert {value.dtype for value in ends["bfloat16"].values()} == {torch.float32, torch.int64}
    assert moved(ends["float32"], ends["bfloat16"])
    torch.testing.assert_close(ends["float32"]["fc.weight"], ends["bfloat16"]["fc.weight"], atol=0.05, rtol=0.1)
    plain = network()
    ran((phase(),), plain, data)
    assert not moved(ends["float32"], plain.state_dict())


# --- batches ----------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(n=st.integers(1, 70), batch_size=st.integers(1, 20), seed=st.integers(0, 2**63 - 1), number=st.integers(0, 10**6))
def test_a_pass_shows_every_image_once(n: int, batch_size: int, seed: int, number: int) -> None:
    data = blank_images(n)
    batches = [batch.index_B.tolist() for batch in data.batches("retain", batch_size, seed, number)]
    assert len(batches) == data.length("retain", batch_size)
    assert all(len(batch) == max(2, batch_size) for batch in batches[:-1])
    assert 2 <= len(batches[-1]) <= max(2, batch_size + 1)
    lone = [batch for batch in batches if len(set(batch)) == 1]
    assert all(len(batch) == 2 for batch in lone)
    assert not lone or batch_size == 1 or n == 1
    assert sorted(image for batch in batches for image in dict.fromkeys(batch)) == list(range(n))


def blank_images(n: int) -> Data:
    pixels = torch.zeros(n, 3, 1, 1, dtype=torch.uint8)
    one = torch.ones(1, 3, 1, 1)
    return Data(pixels, torch.zeros(n, dtype=torch.long), {"retain": torch.arange(n), "forget": torch.arange(n)}, one, one)


def test_orders_differ_by_seed_pass_and_split() -> None:
    data = blank_images(50)

    def order(split: str, seed: int, number: int) -> tuple[int, ...]:
        return tuple(torch.cat([batch.index_B for batch in data.batches(split, 8, seed, number)]).tolist())

    drawn = [order(split, seed, number) for split in ("retain", "forget") for seed in range(4) for number in range(4)]
    assert len(set(drawn)) == len(drawn)
    assert order("retain", 3, 2) == drawn[3 * 4 + 2]


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    data = images(retain=17)
    assert [len(batch.labels_B) for batch in data.batches("retain", 8, 0, 0)] == [8, 9]
    assert ran((phase(epochs=1),), network(), data)[1].images == 17


def test_a_lone_image_is_shown_twice_and_counts_as_two() -> None:
    data = images(forget=1)
    (batch,) = data.batches("forget", 8, 0, 0, Augment(crop=2, flip=True))
    assert batch.index_B.tolist() == data.splits["forget"].tolist() * 2
    assert torch.equal(batch.images_BCHW[0], batch.images_BCHW[1])
    record = ran((phase(epochs=1, terms=BOTH, order=Alternate()),), network(), data)[1]
    assert (record.steps, record.images) == (2, 8 + 2)


def test_one_image_can_be_forgotten_by_a_network_that_ends_on_one_pixel() -> None:
    """ResNet-18's last BatchNorm sees 1x1 pixels of a 32x32 image, and can't train on a single one."""
    data = images(retain=9, forget=1, size=32)
    student = model.build("resnet18", 10, 0)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        student.train()(data.normalised(data.splits["forget"]))
    records = ran(small("model_5", epochs=2, lr=0.001), student.eval(), data)
    assert [(e.steps, e.images) for e in records[1:]] == [(2, 9 + 2)] * 2


def variants(image: Tensor, crop: int, flip: bool) -> dict[bytes, tuple[int, int, int]]:
    """Every crop (row, column) and flip of one uint8 image, by a plain loop."""
    _, height, width = image.shape
    padded = torch.zeros(3, height + 2 * crop, width + 2 * crop, dtype=torch.uint8)
    padded[:, crop : crop + height, crop : crop + width] = image
    found = {}
    for row in range(2 * crop + 1):
        for column in range(2 * crop + 1):
            cut = padded[:, row : row + height, column : column + width]
            for flipped in range(1 + flip):
                found[(cut.flip(-1) if flipped else cut).contiguous().numpy().tobytes()] = (row, column, flipped)
    return found


@pytest.mark.parametrize("augment", [Augment(2, True), Augment(2, False), Augment(0, True), Augment(0, False)], ids=repr)
def test_augmentation_equals_a_plain_loop_and_is_drawn_anew(augment: Augment) -> None:
    data = images(retain=40, forget=2, validation=2, size=6)
    tables = {int(i): variants(data.images_NCHW[i], augment.crop, augment.flip) for i in data.splits["retain"]}
    unscaled = replace(data, mean=torch.zeros(1, 3, 1, 1), std=torch.full((1, 3, 1, 1), 1 / 255))

    def drawn(number: int) -> dict[int, tuple[int, int, int]]:
        choices = {}
        for batch in unscaled.batches("retain", 8, 0, number, augment):
            for index, picture in zip(batch.index_B.tolist(), batch.images_BCHW.round().to(torch.uint8), strict=True):
                choices[index] = tables[index][picture.contiguous().numpy().tobytes()]
        return choices

    passes = [drawn(number) for number in range(6)]
    assert drawn(0) == passes[0]
    every = {choice for choices in passes for choice in choices.values()}
    rows = set(range(2 * augment.crop + 1))
    assert {row for row, _, _ in every} == {column for _, column, _ in every} == rows
    assert {flipped for _, _, flipped in every} == set(range(1 + augment.flip))
    if augment != Augment(0, False):
        assert all(one != other for one, other in pairwise(passes))
    plain = [batch.index_B.tolist() for batch in data.batches("retain", 8, 0, 3)]
    assert [batch.index_B.tolist() for batch in data.batches("retain", 8, 0, 3, augment)] == plain


@pytest.mark.parametrize("augment", [Augment(resized=0.3), Augment(flip=True, resized=0.08)], ids=repr)
def test_a_resized_crop_is_a_part_of_the_image_enlarged(augment: Augment) -> None:
    """Of pixels that hold their own row and column: bilinear interpolation is exact there."""
    n, size = 24, 8
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    pixels = torch.stack([rows, columns, torch.full_like(rows, 7)]).to(torch.uint8).expand(n, -1, -1, -1).contiguous()
    everything = torch.arange(n)
    data = Data(pixels, everything % 2, {"retain": everything}, torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), 1 / 255))
    drawn = [torch.cat([batch.images_BCHW for batch in data.batches("retain", 5, 0, number, augment)]) for number in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.allclose(drawn[0], drawn[2])
    flips = 0
    for image in drawn[0]:
        row, column = image[0, :, 3], image[1, 3]
        assert torch.allclose(image[0], row[:, None].expand(size, size), atol=1e-4) and torch.allclose(image[2], torch.full((8, 8), 7.0))
        flips += int(column[0] > column[-1])
        inner = [values[(values > 0.01) & (values < size - 1.01)].diff().abs() for values in (row, column)]  # the border is repeated
        height, width = (float(steps.median()) for steps in inner)
        assert all(torch.allclose(steps, steps.median(), atol=1e-3) for steps in inner)
        assert augment.resized is not None and augment.resized * 3 / 4 - 1e-3 < height * width < 1 + 1e-3
        assert max(height, width) > 0.999 or 3 / 4 - 1e-3 < width / height < 4 / 3 + 1e-3
    assert (flips > 0) == augment.flip


def test_the_engine_augments_each_pass_anew(data: Data) -> None:
    seen: list[Tensor] = []
    augment = Augment(crop=2, flip=True)
    steps = (phase(epochs=2, augment=augment),)
    ran(watched(steps, lambda batch, refs: seen.append(batch.images_BCHW)), network(), data, seed=6)
    expected = [batch.images_BCHW for number in range(2) for batch in data.batches("retain", 8, 6, number, augment)]
    assert all(torch.equal(one, other) for one, other in zip(seen, expected, strict=True))


def test_batches_are_normalised_as_they_are_cut(data: Data) -> None:
    batch = next(data.batches("retain", 8, 0, 0))
    plain = (data.images_NCHW[batch.index_B].double() / 255 - data.mean) / data.std
    torch.testing.assert_close(batch.images_BCHW.double(), plain, atol=1e-6, rtol=1e-6)
    assert torch.equal(batch.labels_B, data.labels_N[batch.index_B])
    last = next(replace(data, channels_last=True).batches("retain", 8, 0, 0))
    assert last.images_BCHW.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last.images_BCHW, batch.images_BCHW)


@pytest.mark.parametrize("images", [0, 1, PART // 3 // 32**2, 2 * PART // 3 // 32**2 + 1])
def test_parts_of_a_large_batch_are_normalised_as_the_whole(images: int) -> None:
    pixels = torch.arange(images * 3 * 32**2).mul(37).remainder(256).to(torch.uint8).view(images, 3, 32, 32)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1)
    data = Data(pixels, torch.zeros(images, dtype=torch.int64), {}, mean, std, channels_last=True)
    found = data.normalised(torch.arange(images))
    assert torch.equal(found, pixels.to(torch.float32).div(255).sub(mean).div(std))
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_weights_of_a_draw_are_on_the_device_also_before_any_loss_is_known(data: Data) -> None:
    """They are indexed by splits there. A device without values stands in for a GPU."""
    seen = []

    class Fake:
        device = torch.device("meta")
        labels_N = torch.empty(5, dtype=torch.long, device="meta")

        def drawn(self, stream: str, size: int, seed: int, number: int, weights_N: Tensor, *given: Any) -> Iterator[Batch]:
            seen.append(weights_N[torch.empty(3, dtype=torch.long, device="meta")])
            return iter(data.batches(stream, size, seed, number))

    drawing = phase(draw=ByLoss())
    next(engine._passes(drawing, "retain", Fake(), 0, State(), None))  # type: ignore[arg-type]
    assert [(weights.device.type, len(weights)) for weights in seen] == [("meta", 3)]
