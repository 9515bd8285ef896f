"""Losses, edits, constraints and later fields: each equals its formula, and leaves alone what it does not name."""

import hashlib
import math
import random
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import Module
from torch.nn.functional import cross_entropy, kl_div

from lethe._util.errors import UserError
from lethe.data.device_data import Batch, Data
from lethe.engine import engine
from lethe.engine.frozen_references import FrozenReferences
from lethe.recipes.constraints import L1, Saliency
from lethe.recipes.contrast import AwayFromRetain, Contrastive
from lethe.recipes.gradient_edits import AscendAndReset, Dampen, ReinitialiseLeast
from lethe.recipes.gradients import Bargain, ForgetSalient, GainOnForget, SlowOthers
from lethe.recipes.held_out import for_selection, halves, shapes
from lethe.recipes.inputs import Adversarial, Differentiable, InsteadUnseen, Perturbed, Views, WithRetain
from lethe.recipes.kept_weights import KeepWeights, NearestError
from lethe.recipes.losses import (
    BalancedCrossEntropy,
    CrossEntropy,
    Distillation,
    Hinge,
    RandomLabels,
    Sensitivity,
    ToUnseen,
    TowardsTargets,
    Uniform,
    Weighted,
    quantiles,
)
from lethe.recipes.optimizers import SGD, Adam, AdamW
from lethe.recipes.ordering import Ahead, Alongside
from lethe.recipes.parameters import PullOn
from lethe.recipes.recipe import Augment, ByLoss, Edit, Phase, Term, parse
from lethe.recipes.schedules import Constant, Cosine, Part, Ramp, WarmUp
from lethe.recipes.stopping import LossOfUnseen, SensitivityRose
from lethe.recipes.stored import MatchModel
from lethe.recipes.trainable import Layers
from lethe.recipes.unseen_losses import ByForgetting, LikeUnseen
from lethe.recipes.weight_edits import (
    AddNoise,
    KeepTask,
    Negate,
    ReinitialiseLayers,
    Rewind,
    ShrinkPerturb,
    SubtractMerged,
    SubtractTask,
    Transpose,
)
from lethe.testing.method_contract import interrupted_everywhere
from lethe.testing.small_runs import copied, images, moved, network, small


@pytest.fixture
def refs() -> FrozenReferences:
    return FrozenReferences(network(0).eval(), network(1).eval())


def batch(size: int = 12) -> Batch:
    return next(images().batches("retain", size, 0, 0))


# --- reprs ------------------------------------------------------------------------------------------------------------

LATER = [
    Phase("a", 1, (Term("retain", batch_size=4),), 8, part=1.5, forward="joint", weight_steps="batch", clip=1.0, record_losses=True),
    Phase(
        "a", 1, (), 8, draw=ByLoss(1.0), constraint=Saliency(0.2), penalty=L1(0.1), forget_optimizer=AdamW(0.05), forget_lr=Constant(1e-4)
    ),
    Augment(4, True, ("retain",)),
    Part(WarmUp(0.1, Cosine(0.05)), 0.4, 1.0),
    (
        Term("forget", ToUnseen()),
        Term("forget", Hinge(2.3)),
        Term("retain", Distillation("random_init", 4.0)),
        Term("forget", RandomLabels()),
    ),
    Phase("a", 1, (Term("retain", Contrastive(0.2), inputs=Views(2, False)),), 8, combine=Bargain(), gradients=ForgetSalient(2.0)),
    (
        Term("forget", LikeUnseen("class"), inputs=Perturbed(0.1, 2)),
        Term("forget", ByForgetting(0.0, "tanh"), inputs=Adversarial()),
        Ahead(5),
    ),
    Phase("a", 1, (Term("forget", Sensitivity(), inputs=Differentiable()), Term("forget", Uniform())), 8, stop=SensitivityRose(0.2)),
    (Term("forget", AwayFromRetain(), inputs=WithRetain()), LossOfUnseen(), MatchModel("a", "b"), InsteadUnseen()),
    (Dampen(), AscendAndReset(0.1, 0.2), ReinitialiseLeast(), Transpose(), SubtractTask(1.0), SlowOthers(0.3)),
    (
        Negate(),
        ReinitialiseLayers(("layer4",)),
        AddNoise(0.1),
        ShrinkPerturb(0.5),
        Rewind("a", "b"),
        Weighted(),
        Adam(),
        Alongside(),
        Alongside(cycle=False),
    ),
    (KeepWeights(), NearestError(), KeepTask(), SubtractMerged(0.5), GainOnForget(0.1)),
]


@pytest.mark.parametrize("value", LATER, ids=repr)
def test_new_values_read_back(value: object) -> None:
    assert parse(repr(value)) == value
    assert hash(parse(repr(value))) == hash(value)


def test_a_field_added_later_is_printed_only_where_it_is_used() -> None:
    """What was printed before phases could draw, clip or join is printed today, letter by letter: results are identified by it."""
    before = (
        "Phase(name='a', epochs=2, terms=(Term(stream='retain', loss=CrossEntropy(), weight=1.0),), batch_size=8, "
        "lr=Constant(value=0.001), order=InTurn(), trains=Layers(names=('all',)), optimizer=None, batchnorm='train', "
        "augment=Augment(crop=4, flip=True), keep='last', lr_steps='epoch')"
    )
    assert repr(Phase("a", 2, (Term("retain"),), 8, augment=Augment(4, True))) == before
    assert repr(Phase("a", 2, (Term("retain"),), 8, augment=Augment(4, True), clip=7.0)) == f"{before[:-1]}, clip=7.0)"


# --- the halves of validation ------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.randoms())
def test_the_halves_of_validation_are_apart_and_even_in_every_class(labels: list[int], random: object) -> None:
    labels_N = torch.tensor(labels)
    validation = torch.randperm(len(labels), generator=torch.Generator().manual_seed(len(labels)))
    shaping, selection = halves(validation, labels_N)
    assert sorted([*shaping.tolist(), *selection.tolist()]) == list(range(len(labels)))
    for label in set(labels):
        counts = [int((labels_N[part] == label).sum()) for part in (shaping, selection)]
        assert 0 <= counts[0] - counts[1] <= 1
    assert all(torch.equal(a, b) for a, b in zip(halves(validation.sort().values, labels_N), (shaping, selection), strict=True))


def test_only_a_recipe_that_uses_validation_gives_half_of_it_up() -> None:
    data = images()
    using = (Phase("a", 1, (Term("retain"), Term("forget", ToUnseen())), 8),)
    other = (Phase("a", 1, (Term("retain"),), 8), Negate())
    assert (shapes(using), shapes(other)) == (True, False)
    assert data.for_selection(other) is data
    left = data.for_selection(using).splits["validation"]
    assert torch.equal(left, halves(data.splits["validation"], data.labels_N)[1])
    assert "validation" not in for_selection(using, {"retain": data.splits["retain"]}, data.labels_N)
    singles = {"validation": torch.tensor([0, 2, 4])}
    with pytest.raises(UserError, match=r"^validation has 3 images, one of a class at most; .*: it takes two images of a class$"):
        for_selection(using, singles, torch.arange(5))
    assert for_selection(other, singles, torch.arange(5)) is singles
    assert for_selection(using, singles, torch.tensor([0, 1, 2, 3, 0]))["validation"].tolist() == [4]


# --- losses -------------------------------------------------------------------------------------------------------------


def test_a_forget_image_takes_the_unseen_loss_of_its_class_at_its_own_rank() -> None:
    forget, unseen = torch.tensor([0.3, 0.1, 0.2, 5.0]), torch.tensor([4.0, 0.0, 2.0, 7.0])
    targets = quantiles(forget, torch.tensor([0, 0, 0, 1]), unseen, torch.tensor([0, 0, 0, 1]))
    assert targets.tolist() == [4.0, 0.0, 2.0, 7.0]
    assert quantiles(forget[:1], torch.tensor([3]), unseen, torch.tensor([0, 0, 0, 1])).tolist() == [3.0]  # no unseen image of the class
    pair = quantiles(forget[:2], torch.tensor([0, 0]), unseen[:2], torch.tensor([0, 0]), inner=True)
    assert pair.tolist() == [3.0, 1.0]


@pytest.mark.parametrize("on", ["loss", "log_odds", "scaled_log_odds"])
def test_the_pull_raises_losses_up_to_their_target_and_never_lowers_one(on: PullOn, refs: FrozenReferences) -> None:
    data, model = images(), network(2).train()
    before = copied(model)
    prepared = ToUnseen(beta=0.5, cap=2.5, on=on).prepare(model, data, refs)
    assert not moved(before, model.state_dict())
    assert all(module.training for module in model.modules())
    index = data.splits["forget"]
    logits = torch.nn.Parameter(torch.randn(len(index), 10, generator=torch.Generator().manual_seed(0)))
    forget = Batch(data.normalised(index), data.labels_N[index], index)
    prepared(logits, forget, refs).backward()
    targets = prepared.targets_N[index]  # type: ignore[attr-defined]
    assert targets.max() <= 2.5
    losses = cross_entropy(logits, forget.labels_B, reduction="none")
    above = losses > targets
    assert 0 < above.sum() < len(index)
    assert logits.grad is not None
    assert not logits.grad[above].any()
    assert (logits.grad[~above].gather(1, forget.labels_B[~above, None]) > 0).all()  # a step lowers the true class's logit
    both = ToUnseen(beta=0.5, cap=2.5, both_ways=True, on=on).prepare(model, data, refs)
    assert both(logits, forget, refs) > prepared(logits, forget, refs)
    with pytest.raises(TypeError, match="no targets"):
        ToUnseen()(logits, forget, refs)


def test_log_odds_are_pulled_where_losses_are_near_0() -> None:
    """An image with a loss of 1e-5 and a target of 1e-3: the pull on its loss has next to no gradient."""
    gradients = []
    for on in ("loss", "log_odds"):
        logits = torch.nn.Parameter(torch.tensor([[11.5, 0.0]]))
        batch = Batch(torch.zeros(1), torch.tensor([0]), torch.tensor([0]))
        pull = TowardsTargets(ToUnseen(on=on), torch.tensor([1e-3]))  # type: ignore[arg-type]
        pull(logits, batch, FrozenReferences(network(), network())).backward()
        assert logits.grad is not None
        gradients.append(float(logits.grad[0, 0]))
    assert 0 < gradients[0] < 1e-7
    assert gradients[1] == pytest.approx(1.0)


def linear(classes: int, deviation: float) -> Module:
    """A linear network whose losses differ from image to image."""
    layer = torch.nn.Linear(3 * 16 * 16, classes, bias=False)
    torch.nn.init.normal_(layer.weight, std=deviation, generator=torch.Generator().manual_seed(0))
    return torch.nn.Sequential(torch.nn.Flatten(), layer)


def test_a_weight_of_scaled_log_odds_means_the_same_for_a_model_three_times_as_certain(refs: FrozenReferences) -> None:
    """Of two classes: log odds are the difference of the logits, so a multiple of all logits is one of all log odds."""
    data = images()
    data = replace(data, labels_N=data.labels_N % 2)
    distances = []
    for certain in (1.0, 3.0):
        model = linear(2, 0.02 * certain)
        index = data.splits["forget"]
        batch = Batch(data.normalised(index), data.labels_N[index], index)
        pull = ToUnseen(cap=99.0, on="scaled_log_odds").prepare(model, data, refs)
        distances.append(pull(model(batch.images_BCHW), batch, refs).item())
    assert 0.01 < distances[0] == pytest.approx(distances[1], rel=1e-3)


@pytest.mark.parametrize("on", ["log_odds", "scaled_log_odds"])
def test_losses_whose_exponential_float32_lacks_have_log_odds(on: PullOn, refs: FrozenReferences) -> None:
    """Such as those of a model in eval mode after a few steps on a few images."""
    data, model = images(), linear(10, 20.0)
    index = data.splits["forget"]
    batch = Batch(data.normalised(index), data.labels_N[index], index)
    logits = model(batch.images_BCHW)
    assert cross_entropy(logits, batch.labels_B) > 100
    pull = ToUnseen(on=on, fade=0.3).prepare(model, data, refs)
    assert isinstance(pull, TowardsTargets)
    assert pull.targets_N[index].isfinite().all() and math.isfinite(pull.share) and pull(logits, batch, refs).isfinite()


@pytest.mark.parametrize("on", ["loss", "scaled_log_odds"])
def test_the_pull_fades_as_forget_comes_near_its_targets(on: PullOn, refs: FrozenReferences) -> None:
    """Where half of the distance is left at which it begins to fade, half of the pull; nothing where forget is above its targets."""
    data, model = images(), linear(10, 0.02)
    index = data.splits["forget"]
    whole = ToUnseen(on=on).prepare(model, data, refs)
    assert isinstance(whole, TowardsTargets)
    assert whole.share == (1 if on == "loss" else pytest.approx((len(index) / len(data.splits["retain"])) ** (1 / 3)))
    losses_F = cross_entropy(model(data.normalised(index)), data.labels_N[index], reduction="none").detach()
    wanted_F, found_F = (whole.rule.measured(each, whole.spread) for each in (whole.targets_N[index], losses_F))
    left = (wanted_F - found_F).mean().item()
    assert abs(left) > 0.01
    for times in (2, 0.5):
        faded = ToUnseen(on=on, fade=times * abs(left)).prepare(model, data, refs)
        assert isinstance(faded, TowardsTargets)
        assert faded.share == pytest.approx(whole.share * min(1 / times, 1) if left > 0 else 0, abs=1e-4)


def test_targets_come_from_the_shaping_half_alone(refs: FrozenReferences) -> None:
    data, model = images(), network(2)
    shaping, selection = halves(data.splits["validation"], data.labels_N)
    found = [ToUnseen().prepare(model, data, refs).targets_N]  # type: ignore[attr-defined]
    for blank in (selection, shaping):
        changed = images()
        changed.images_NCHW[blank] = 0
        found.append(ToUnseen().prepare(model, changed, refs).targets_N)  # type: ignore[attr-defined]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_distillation_is_the_divergence_of_the_student_from_the_teacher(refs: FrozenReferences) -> None:
    logits, seen = torch.randn(12, 10), batch()
    teacher = (refs.random_init(seen.images_BCHW) / 0.2).softmax(1).double()
    student = (logits / 0.2).softmax(1).double()
    by_hand = 0.04 * (teacher * (teacher.log() - student.log())).sum() / 12
    assert Distillation("random_init", 0.2)(logits, seen, refs).item() == pytest.approx(by_hand.item(), rel=1e-5)
    swapped = 0.04 * kl_div(teacher.log(), student.log(), log_target=True, reduction="batchmean")
    assert by_hand.item() != pytest.approx(swapped.item(), rel=1e-3)  # a published implementation swaps the two
    own = refs.original(seen.images_BCHW)
    assert Distillation()(own, seen, refs).item() == pytest.approx(0, abs=1e-6)


def test_a_hinge_is_flat_above_its_margin(refs: FrozenReferences) -> None:
    logits, seen = torch.randn(12, 10), batch()
    losses = cross_entropy(logits, seen.labels_B, reduction="none")
    assert Hinge(2.0)(logits, seen, refs).item() == pytest.approx(sum(max(0.0, 2.0 - loss) for loss in losses.tolist()) / 12, rel=1e-5)
    assert Hinge(0.0)(logits, seen, refs) == 0


def test_weights_by_the_loss_itself_carry_no_gradient(refs: FrozenReferences) -> None:
    logits, seen = torch.nn.Parameter(torch.randn(12, 10)), batch()
    losses = cross_entropy(logits, seen.labels_B, reduction="none").detach()
    weights = losses**-0.5 / (losses**-0.5).sum()
    Weighted(-0.5)(logits, seen, refs).backward()
    by_hand = (logits.detach().softmax(1) - torch.nn.functional.one_hot(seen.labels_B, 10)) * weights[:, None]
    assert logits.grad is not None
    assert torch.allclose(logits.grad, by_hand, atol=1e-6)
    assert Weighted(0.0)(logits, seen, refs).item() == pytest.approx(CrossEntropy()(logits, seen, refs).item(), rel=1e-6)


def test_random_labels_are_drawn_anew_and_may_be_the_true_one(refs: FrozenReferences) -> None:
    logits, seen = torch.eye(10)[torch.zeros(12, dtype=torch.long)] * 50, batch()
    torch.manual_seed(0)
    shares = [round(RandomLabels()(logits, seen, refs).item() / 50 * 12) for _ in range(400)]  # labels that are not class 0
    assert len(set(shares)) > 3
    assert sum(shares) / 400 == pytest.approx(12 * 0.9, abs=0.3)


# --- edits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "edit",
    [Negate(), Negate(("fc",)), ReinitialiseLayers(("layer2", "head")), AddNoise(0.5, ("layer1",)), ReinitialiseLayers(("last_block",))],
    ids=repr,
)
def test_an_edit_changes_what_it_names_and_nothing_else(edit: Edit, refs: FrozenReferences) -> None:
    model = network(0)
    before = copied(model)
    edit(model, images(), refs)
    assert moved(before, model.state_dict()) - {"running_mean"} <= edit.writes(model)  # type: ignore[attr-defined]
    assert moved(before, model.state_dict()) >= {name for name in edit.writes(model) if before[name].ndim > 1}  # type: ignore[attr-defined]


def test_negation_is_of_the_first_convolution_alone(refs: FrozenReferences) -> None:
    model = network(0)
    before = copied(model)
    Negate()(model, images(), refs)
    (name,) = moved(before, model.state_dict())
    assert before[name].ndim == 4
    assert name == next(iter(before))
    assert torch.equal(model.state_dict()[name], -before[name])


class Positions(Module):
    """Its positions have the dimensions of a kernel, and come before it."""

    def __init__(self) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.ones(1, 4, 8, 8))
        self.patches = nn.Conv2d(3, 4, 2, 2)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (Positions(), "patches.weight"),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.Flatten(), nn.Linear(8, 3)), "0.weight"),
        (nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(8, 3)), "2.weight"),
        (nn.Linear(8, 3), "weight"),
    ],
    ids=["positions", "one-dimensional", "embedding", "linear"],
)
def test_what_is_negated_first_is_a_convolution_or_a_linear_layer(model: Module, name: str, refs: FrozenReferences) -> None:
    before = copied(model)
    Negate()(model, images(), refs)
    assert moved(before, model.state_dict()) == {name}
    assert torch.equal(model.state_dict()[name], -before[name])


def test_negating_what_has_no_weight_tensor_is_refused(refs: FrozenReferences) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3))
    for layer in ("first", "0"):
        with pytest.raises(UserError, match=f"negate: {layer} has no weights of a convolution or linear layer"):
            Negate((layer,))(model, images(), refs)


def test_reinitialised_layers_are_the_random_networks_with_their_statistics(refs: FrozenReferences) -> None:
    model = network(0)
    for name, buffer in model.named_buffers():
        buffer.add_(1 if name.startswith("layer2") else 0)
    ReinitialiseLayers(("layer2",))(model, images(), refs)
    inside = [name for name in model.state_dict() if name.startswith("layer2")]
    assert any("running" in name for name in inside)
    assert all(torch.equal(model.state_dict()[name], refs.random_init.state_dict()[name]) for name in inside)
    deep = [name for name in inside if model.state_dict()[name].ndim == 4]
    assert deep  # not only what is a child of the network itself, as in a published implementation


def test_a_head_moves_a_share_of_the_way_to_the_random_networks(refs: FrozenReferences) -> None:
    model = network(0)
    before = copied(model)
    ReinitialiseLayers(("head",), share=0.25)(model, images(), refs)
    assert moved(before, model.state_dict()) == {"fc.weight", "fc.bias"}
    expected = 0.75 * before["fc.weight"] + 0.25 * refs.random_init.state_dict()["fc.weight"]
    assert torch.allclose(model.state_dict()["fc.weight"], expected, atol=1e-7)
    assert "share" not in repr(ReinitialiseLayers(("head",)))  # all of the way: recipes of before keep their repr


def test_shrinking_goes_from_the_model_to_the_random_one(refs: FrozenReferences) -> None:
    for share in (0.0, 0.25, 1.0):
        model = network(0)
        ShrinkPerturb(share)(model, images(), refs)
        expected = (1 - share) * network(0).state_dict()["fc.weight"] + share * refs.random_init.state_dict()["fc.weight"]
        assert torch.allclose(model.state_dict()["fc.weight"], expected, atol=1e-7)


def test_rewinding_takes_the_named_file_and_no_other(tmp_path: Path, refs: FrozenReferences) -> None:
    file = tmp_path / "3.safetensors"
    save_file(network(5).state_dict(), file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    model = network(0)
    Rewind(str(file), sha256)(model, images(), refs)
    assert not moved(copied(network(5)), model.state_dict())
    with pytest.raises(UserError, match="SHA-256"):
        Rewind(str(file), "0" * 64)(model, images(), refs)
    with pytest.raises(UserError, match="can't be read"):
        Rewind(str(tmp_path / "none"), sha256)(model, images(), refs)
    save_file({"fc.weight": torch.zeros(2)}, file)
    with pytest.raises(UserError, match="not those of this network"):
        Rewind(str(file), hashlib.sha256(file.read_bytes()).hexdigest())(model, images(), refs)


# --- constraints, draws, schedules ---------------------------------------------------------------------------------------


def test_saliency_ranks_all_weights_together_by_the_gradient_on_forget(refs: FrozenReferences) -> None:
    data = images()
    masks = Saliency(0.3).masks(data, refs)
    model = network(0).eval()
    index = data.splits["forget"]
    cross_entropy(model(data.normalised(index)), data.labels_N[index], reduction="sum").backward()
    gradients = {name: parameter.grad.abs() for name, parameter in model.named_parameters() if parameter.grad is not None}
    inside = torch.cat([gradients[name][masks[name]] for name in masks])
    outside = torch.cat([gradients[name][~masks[name]] for name in masks])
    assert len(inside) == round(0.3 * (len(inside) + len(outside)))
    assert inside.min() >= outside.max()


@dataclass
class Weights:
    model: Module

    def norm(self) -> Tensor:
        return torch.stack([parameter.abs().sum() for parameter in self.model.parameters()]).sum()


def test_the_l1_penalty_falls_to_nothing() -> None:
    model = network(0)
    assert L1(0.1)(model, 0.0).item() == pytest.approx(0.1 * Weights(model).norm().item())
    assert L1(0.1)(model, 0.75).item() == pytest.approx(0.025 * Weights(model).norm().item())


def test_images_are_drawn_by_their_last_loss() -> None:
    data = images(retain=4, forget=2, validation=2)
    losses = torch.zeros(8)
    often = int(data.splits["retain"][1])
    losses[often] = 9.0
    weights = ByLoss(0.5, 3.0).weights(losses)
    drawn = torch.cat([b.index_B for b in data.drawn("retain", 50, 0, 0, weights, 80)])
    assert len(drawn) == 4000
    assert set(drawn.tolist()) == set(data.splits["retain"].tolist())
    assert (drawn == often).float().mean().item() == pytest.approx(3.5 / 5, abs=0.03)
    assert torch.equal(drawn, torch.cat([b.index_B for b in data.drawn("retain", 50, 0, 0, weights, 80)]))
    assert not torch.equal(drawn, torch.cat([b.index_B for b in data.drawn("retain", 50, 0, 1, weights, 80)]))


@settings(max_examples=50, deadline=None)
@given(st.floats(0, 1), st.floats(0.01, 0.9))
def test_a_run_in_parts_keeps_its_schedule(progress: float, cut: float) -> None:
    whole = WarmUp(0.1, Cosine(0.05))
    parts = Part(whole, 0.0, cut), Part(whole, cut, 1.0)
    inside = parts[0](progress / cut) if progress < cut else parts[1]((progress - cut) / (1 - cut))
    assert math.isclose(inside, whole(progress), abs_tol=1e-9)
    assert 0 <= whole(progress) <= 0.05
    assert Part(Ramp(1.0, "power", 0.5), 0.0, 0.25)(1.0) == pytest.approx(0.5)


@pytest.mark.parametrize(("part", "steps"), [(1.0, 5), (0.5, 2), (0.01, 1), (1.4, 7), (2.0, 10)])
def test_an_epoch_is_a_part_of_a_pass_or_more_than_one(part: float, steps: int) -> None:
    order = Phase("a", 1, (Term("retain"),), 8, part=part).batch_order({"R": 5}, 0)
    assert order == ["R"] * steps


def test_a_stream_has_its_own_batch_size_and_augmentation() -> None:
    phase = Phase("a", 1, (Term("retain"), Term("forget", batch_size=3)), 8, augment=Augment(2, True, ("retain",)))
    assert (phase.size("retain"), phase.size("forget")) == (8, 3)
    assert (phase.augmentation("retain"), phase.augmentation("forget")) == (phase.augment, None)
    assert Layers(("all",))(network(), 0.0)


def test_smoothed_and_weighted_cross_entropy_equal_plain_loops(refs: FrozenReferences) -> None:
    logits, labels = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0] * 6 + [2] * 6)
    log_p, weights = logits.log_softmax(1), (0.5, 1.0, 3.0)
    seen, own = Batch(torch.zeros(12), labels, torch.arange(12)), [weights[label] for label in labels.tolist()]
    plain = [-(0.9 * log_p[n, label] + 0.1 * log_p[n].mean()).item() for n, label in enumerate(labels.tolist())]
    assert CrossEntropy(label_smoothing=0.1)(logits, seen, refs).item() == pytest.approx(sum(plain) / 12, rel=1e-5)
    weighted = [-weight * log_p[n, label].item() for n, (weight, label) in enumerate(zip(own, labels.tolist(), strict=True))]
    assert CrossEntropy(class_weights=weights)(logits, seen, refs).item() == pytest.approx(sum(weighted) / sum(own), rel=1e-5)


def test_balanced_weights_are_those_of_scikit_learn_on_the_images_that_are_trained_on(refs: FrozenReferences) -> None:
    from sklearn.utils.class_weight import compute_class_weight

    labels = torch.tensor([0] * 5 + [1] * 3 + [2] * 8 + [3] * 2)
    split = torch.tensor([0, 1, 2, 5, 8, 9, 10, 11, 12])  # no image of class 3
    data = Data(torch.zeros(18, 3, 1, 1, dtype=torch.uint8), labels, {"retain": split}, torch.zeros(1), torch.ones(1))
    loss = BalancedCrossEntropy("retain", 0.2).prepare(refs.original, data, refs)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels[split].numpy())
    assert isinstance(loss, CrossEntropy) and loss.label_smoothing == 0.2
    assert loss.class_weights == pytest.approx((*expected, 0.0))
    logits, seen = torch.randn(9, 6, generator=torch.Generator().manual_seed(0)), Batch(torch.zeros(9), labels[split], split)
    six = CrossEntropy(0.2, (*expected, 0.0, 0.0, 0.0))  # a network may have classes that the data have no label of
    assert loss(logits, seen, refs).item() == pytest.approx(six(logits, seen, refs).item())
    assert loss(logits[:, :4], seen, refs) == CrossEntropy(0.2, loss.class_weights)(logits[:, :4], seen, refs)


def test_transposing_needs_a_square_kernel(refs: FrozenReferences) -> None:
    model = network()
    Transpose()(model, images(), refs)
    for name, before in refs.original.named_parameters():
        assert torch.equal(model.get_parameter(name), before.transpose(2, 3) if before.ndim == 4 else before)
    with pytest.raises(UserError, match="fc has no square convolution kernel"):
        Transpose(("fc",))(model, images(), refs)


def test_resetting_what_tells_least_needs_a_convolution(refs: FrozenReferences) -> None:
    model, plain = network(), nn.Sequential(nn.Flatten(), nn.Linear(768, 10))
    with pytest.raises(UserError, match="reinitialise_least: fc has no weights of a two-dimensional convolution"):
        ReinitialiseLeast(layers=("fc",))(model, images(), refs)
    with pytest.raises(UserError, match="reinitialise_least: all has no weights of a two-dimensional convolution"):
        ReinitialiseLeast()(plain, images(), FrozenReferences(plain, plain))
    with pytest.raises(UserError, match="Sequential has no two-dimensional convolution, whose weights msg compares"):
        SlowOthers()(plain, images(), FrozenReferences(plain, plain))


def test_subtracting_a_task_reflects_the_weights_and_leaves_the_statistics(refs: FrozenReferences) -> None:
    model = network()
    model.load_state_dict({name: value + 1 for name, value in model.state_dict().items()})
    SubtractTask(2.0, ("layer1", "fc"))(model, images(), refs)
    for name, before in refs.original.state_dict().items():
        weight = name in dict(model.named_parameters())
        expected = before - 2 if weight and name.startswith(("layer1", "fc")) else before + 1 if weight else before
        assert torch.allclose(model.state_dict()[name], expected), name


# --- stopping ---------------------------------------------------------------------------------------------------------


def test_a_phase_ends_where_forget_is_as_hard_as_unseen_images(tmp_path: Path) -> None:
    """Gradient ascent stops by itself, long before its last epoch; interrupted everywhere it ends alike."""
    ascent = Phase("ascent", 50, (Term("forget", weight=-1.0),), 8, Constant(0.01), optimizer=SGD(0.0, 0.0), stop=LossOfUnseen())
    learn = Phase("learn", 8, (Term("train"),), 8, Constant(0.05), optimizer=SGD(0.9, 0.0))
    data, model = images(), network()
    records = list(engine.run((learn, ascent), model, data))
    refs = FrozenReferences(model, model)
    last = records[-1].epoch
    assert 0 < last < 40
    assert LossOfUnseen().measure(model, data, refs) >= 0
    shorter = network()
    list(engine.run((learn, replace(ascent, epochs=last, stop=None)), shorter, data))
    assert LossOfUnseen().measure(shorter, data, refs) < 0
    assert shapes((ascent,))
    assert not shapes((learn,))
    interrupted_everywhere((replace(learn, epochs=1), replace(ascent, epochs=4)), data, tmp_path, random.Random(0))


def test_sensitivity_ends_a_run_when_it_has_risen() -> None:
    rule = SensitivityRose(0.1)
    assert not rule.reached([])
    assert not rule.reached([3.0, 2.0, 2.1])
    assert rule.reached([3.0, 2.0, 2.3])
    model, data = network(), images()
    model.train()
    assert rule.measure(model, data, FrozenReferences(model, model)) > 0
    assert model.get_submodule("layer1").training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_matching_a_retrained_model_equals_a_plain_loop(tmp_path: Path) -> None:
    """Oracle matching: the upper bound of training towards another model's answers."""
    file, data = tmp_path / "retrained.safetensors", images()
    save_file(network(5).state_dict(), file)
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    match = MatchModel(str(file), sha256)
    phase = Phase("match", 2, (Term("train", match),), 8, Constant(0.01), optimizer=SGD(0.9, 0.0))
    student, plain, teacher = network(), network(), network(5).eval()
    list(engine.run((phase,), student, data))
    steps = torch.optim.SGD(plain.train().parameters(), lr=0.01, momentum=0.9)
    for number in range(2):
        for one in data.batches("train", 8, 0, number):
            steps.zero_grad()
            (plain(one.images_BCHW) - teacher(one.images_BCHW).detach()).square().mean().backward()
            steps.step()
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(student.parameters(), plain.parameters(), strict=True))
    with pytest.raises(UserError, match="match: the SHA-256 of"):
        MatchModel(str(file), "0" * 64).prepare(student, data, FrozenReferences(student, student))


def test_any_method_starts_from_an_earlier_checkpoint_and_stops_where_forget_is_unseen(tmp_path: Path) -> None:
    file = tmp_path / "earlier.safetensors"
    save_file(network(5).state_dict(), file)
    (rewound, *_) = small("ft", rewind=f"{file}@{hashlib.sha256(file.read_bytes()).hexdigest()}")
    model = network()
    rewound(model, images(), FrozenReferences(model, model))  # type: ignore[operator]
    assert not moved(network(5).state_dict(), model.state_dict())
    phases = [step for step in small("neggrad_plus", stop="unseen") if isinstance(step, Phase)]
    assert [phase.stop for phase in phases] == [LossOfUnseen()]


def test_an_edit_that_settings_ask_for_comes_before_a_method_that_is_an_edit() -> None:
    """SSD has no epoch by default, and is no method that does nothing."""
    assert [step.name for step in small("ssd", final_epochs=0, noise=0.1)] == ["noise", "dampen", "final"]
    assert small("ct", epochs=0, noise=0.1) == ()


def test_weights_go_back_to_the_epoch_whose_error_is_that_of_unseen_images(refs: FrozenReferences) -> None:
    data, model = images(), network()
    forget = data.splits["forget"]
    for number in range(3):
        with torch.no_grad():
            model.get_parameter("fc.bias").fill_(float(number))
        KeepWeights()(model, data, refs)
        error = (model(data.normalised(forget)).argmax(1) != data.labels_N[forget]).float().mean()
        assert refs.kept[f"error/{number}"].item() == pytest.approx(error.item())
        refs.kept[f"error/{number}"] = torch.tensor([0.0, 0.1, 1.0][number])
    answers = model(data.normalised(torch.arange(len(data.labels_N)))).argmax(1)
    for added, chosen in ((1, 2), (0, 0)):  # all unseen images wrong, and none
        data.labels_N[:] = (answers + added) % 10
        NearestError()(model, data, refs)
        assert (model.get_parameter("fc.bias") == chosen).all()
    assert shapes(small("scrub", end_at="unseen")) and not shapes(small("scrub"))


def test_a_schedule_goes_over_all_phases_of_scrub() -> None:
    whole = Cosine(0.02)
    for end_at, epochs in (("last", (2, 1)), ("unseen", (1, 1, 1))):
        phases = [step for step in small("scrub", lr_schedule="cosine", epochs=3, end_at=end_at) if isinstance(step, Phase)]
        assert tuple(phase.epochs for phase in phases) == epochs
        rates = [phase.lr(epoch / phase.epochs) for phase in phases for epoch in range(phase.epochs)]
        assert rates == pytest.approx([whole(epoch / 3) for epoch in range(3)])
