"""`import lethe` on a user's own model and data."""

import ast
import dataclasses
import json
import os
from typing import Annotated, Any

import numpy as np
import pytest
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

import lethe
from lethe._util.checkout import default_params
from lethe.config.loader import load
from lethe.data.device_data import Data, RawInputs
from lethe.data.user_data import as_data
from lethe.evaluation import inference
from lethe.evaluation import registry as measures
from lethe.models.redraw import redrawn, unrelated_seed
from lethe.recipes import registry
from lethe.recipes.inputs import Adversarial, Differentiable, Perturbed, Views
from lethe.recipes.parameters import Epochs, Scale
from lethe.recipes.recipe import Recipe
from lethe.recipes.stopping import LossOfUnseen, SensitivityRose
from lethe.recipes.weight_edits import ReinitialiseLayers

NAMES = [
    "SGD",
    "Alternate",
    "Augment",
    "Constant",
    "Cosine",
    "CrossEntropy",
    "Diverged",
    "Epoch",
    "Estimate",
    "EvaluationContext",
    "Every",
    "First",
    "Images",
    "InTurn",
    "Layers",
    "OneCycle",
    "Phase",
    "Ramp",
    "Reinitialise",
    "Score",
    "SourceOptions",
    "Stages",
    "Term",
    "Together",
    "Training",
    "UserError",
    "__version__",
    "evaluate",
    "load",
    "register_data_source",
    "register_measure",
    "register_method",
    "run",
    "unlearn",
]

Pair = tuple[Tensor, Tensor]


def drawn(seed: int, n: int = 160) -> Pair:
    """20 floats each, of three classes a linear rule can tell apart."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n, 20, generator=generator) * 100
    return inputs, inputs[:, :3].argmax(1)


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3)).eval()


RETAIN, FORGET, VALIDATION, TEST = drawn(0), drawn(1, 40), drawn(2), drawn(3)
FEW = {"epochs": 2, "final_epochs": 1, "batch_size": 32, "trains": ("3",), "unfreeze": ("0",)}


def state(model: nn.Module) -> list[Any]:
    values = [value.clone() for value in model.state_dict().values()]
    return [*values, [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(one, other, strict=True))


# --- the door -----------------------------------------------------------------------------------------------------------


def test_public_names() -> None:
    assert lethe.__all__ == NAMES
    assert all(hasattr(lethe, name) for name in NAMES)
    assert set(NAMES) <= set(dir(lethe))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lethe.nothing


# --- unlearning ---------------------------------------------------------------------------------------------------------


def test_an_mlp_forgets_and_the_original_stays() -> None:
    original, seen = mlp(), list[lethe.Epoch]()
    original[0].train()  # type: ignore[index]
    original[3].bias.requires_grad_(False)  # type: ignore[index]
    before = state(original)
    data = {"retain": RETAIN, "forget": FORGET, "validation": VALIDATION}
    model = lethe.unlearn(original, **data, method="hybrid_4", peak=-0.5, **FEW, on_epoch=seen.append)  # type: ignore[arg-type]
    assert same(before, state(original))
    assert model is not original and type(model) is type(original)
    assert state(model)[-2:] == before[-2:]
    assert not torch.equal(model.state_dict()["3.weight"], original.state_dict()["3.weight"])
    assert [epoch.global_epoch for epoch in seen] == [0, 1, 2, 3]
    assert {"retain.accuracy", "forget.accuracy", "validation.loss"} <= set(seen[-1].metrics)


def test_retain_without_what_is_to_be_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        inputs, labels = torch.cat([RETAIN[0], FORGET[0]]).to(dtype), torch.cat([RETAIN[1], FORGET[1]])
        forget = inputs[-40:], labels[-40:]
        with pytest.raises(lethe.UserError, match=r"^retain has all 40 examples of forget in it, with the same labels; "):
            as_data({"retain": (inputs, labels), "forget": forget})
        with pytest.raises(lethe.UserError, match=r"^retain has the example of forget in it"):
            as_data({"retain": (inputs, labels), "forget": (inputs[-1:], labels[-1:])})
        assert not caplog.records
        as_data({"retain": (inputs[:-37], labels[:-37]), "forget": forget})
        said = "3 of 40 examples of forget are in retain, too, with the same labels: a model is taught them again"
        assert [record.message for record in caplog.records] == [said]
        caplog.clear()
    as_data({"retain": (FORGET[0], (FORGET[1] + 1) % 3), "forget": FORGET})  # wrong labels are forgotten, the right ones learned
    assert not caplog.records


def test_names_of_modules_fit_the_network(caplog: pytest.LogCaptureFixture) -> None:
    few = {"retain": RETAIN, "forget": FORGET, "epochs": 2, "final_epochs": 1, "batch_size": 32, "unfreeze_at": 0.5}
    with caplog.at_level("INFO", "lethe"):
        default = lethe.unlearn(mlp(), **few)  # type: ignore[arg-type]
    assert [record.message for record in caplog.records] == [
        "last_block of Sequential: 0, 1",
        "head of Sequential: 3",
        "early of Sequential: 0, 1",
    ]
    given = lethe.unlearn(mlp(), trains=("0", "1", "3"), unfreeze="early", **few)  # type: ignore[arg-type]
    assert same(state(default), state(given))
    head = lethe.unlearn(mlp(), trains="head", method="model_1", retain=RETAIN, forget=FORGET, epochs=1, batch_size=32)
    moved = {name for name, value in head.named_parameters() if not torch.equal(value, dict(mlp().named_parameters())[name])}
    assert moved == {"3.weight", "3.bias"}


@pytest.mark.slow
def test_a_resnet_on_images_of_224_pixels() -> None:
    from torchvision.models import resnet18

    torch.manual_seed(0)
    original = resnet18(num_classes=4).eval()
    before = state(original)
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (6, 3, 224, 224), generator=draw, dtype=torch.uint8)
    labels = torch.arange(6) % 4
    few = {"epochs": 1, "final_epochs": 1, "batch_size": 2, "unfreeze_at": 0.0, "evaluate_every": 2}
    norm: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    model = lethe.unlearn(original, retain=(pixels[:4], labels[:4]), forget=(pixels[4:], labels[4:]), **norm, **few)  # type: ignore[arg-type]
    assert same(before, state(original))
    moved = {name.split(".")[0] for name, value in model.named_parameters() if not torch.equal(value, original.get_parameter(name))}
    assert moved == {"layer1", "layer2", "layer4", "fc"}
    assert torch.equal(model.get_parameter("layer3.0.conv1.weight"), original.get_parameter("layer3.0.conv1.weight"))


def test_equal_seeds_give_equal_weights() -> None:
    few = {"retain": RETAIN, "forget": FORGET, "method": "model_1", "epochs": 1, "batch_size": 32}
    one, again, other = (state(lethe.unlearn(mlp(), seed=seed, **few)) for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert same(one, again) and not same(one, other)


class Pairs(Dataset[tuple[Tensor, int]]):
    def __init__(self, pair: Pair) -> None:
        self.pair = pair

    def __len__(self) -> int:
        return len(self.pair[1])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.pair[0][index], int(self.pair[1][index])


FORMS: dict[str, Any] = {
    "tensors": lambda pair: pair,
    "arrays": lambda pair: (pair[0].double().numpy(), pair[1].numpy()),
    "TensorDataset": lambda pair: TensorDataset(*pair),
    "Dataset": Pairs,
    "factory": lambda pair: lambda: DataLoader(Pairs(pair), batch_size=7),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_data_gives_the_same_model(form: str) -> None:
    retain, forget = FORMS[form](RETAIN), FORMS[form](FORGET)
    model = lethe.unlearn(mlp(), retain=retain, forget=forget, method="model_4", epochs=1, batch_size=32)
    assert same(state(model), state(lethe.unlearn(mlp(), retain=RETAIN, forget=FORGET, method="model_4", epochs=1, batch_size=32)))


def test_floats_are_taken_as_they_are_and_bytes_as_images() -> None:
    floats = as_data({"retain": RETAIN, "forget": FORGET})
    assert isinstance(floats, RawInputs)
    assert torch.equal(floats.normalised(floats.splits["forget"]), FORGET[0])
    assert torch.equal(floats.splits["train"], torch.arange(200))
    pixels = torch.randint(0, 256, (12, 3, 8, 8), dtype=torch.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    images = as_data({"retain": (pixels, torch.zeros(12, dtype=torch.long))}, mean=mean, std=std)
    expected = (pixels / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
    assert type(images) is Data
    torch.testing.assert_close(images.normalised(torch.arange(12)), expected)
    plain = as_data({"retain": (pixels, torch.zeros(12, dtype=torch.long))})
    torch.testing.assert_close(plain.normalised(torch.arange(12)), pixels / 255)


# --- what is refused, in one line ------------------------------------------------------------------------------------------


class Two(nn.Module):
    def forward(self, inputs: Tensor, mask: Tensor) -> Tensor:
        return inputs + mask


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"original": None}, "original is a NoneType; it takes a torch Module that returns logits"),
    "no forget": ({"forget": None}, "forget is None; it takes a torch Dataset"),
    "two inputs": ({"original": Two()}, "Two.forward takes 2 inputs (inputs, mask); it must take one tensor"),
    "a whole map": ({"original": nn.Identity(), "forget": (torch.zeros(4, 3, 2), torch.zeros(4).long())}, "all splits take the same"),
    "other inputs": ({"original": nn.Linear(4, 3)}, "Linear fails on inputs [B, 20]: "),
    "too few classes": ({"original": nn.Linear(20, 2)}, "labels run from 0 to 2, and Linear has 2 classes; it takes 0 to 1"),
    "no logits": ({"original": nn.Unflatten(1, (4, 5))}, "gives [2, 4, 5] for a batch of 2; it must give logits [B, classes]"),
    "a large batch": ({"batch_size": 500}, "batch_size is 500; it takes at most the 160 retain examples"),
    "an unknown argument": ({"peek": 1}, "model_4 has no argument peek; nearest: keep; it takes epochs, scale, lr, "),
    "a value out of range": ({"scale": 2.0}, "scale is 2.0; it takes a number <= 0"),
    "no such method": ({"method": "model_9"}, "method is 'model_9'; nearest: model_6; it takes model_1, "),
    "no method at all": ({"method": None}, "method is a NoneType; it takes a method's name, or a recipe: a tuple of phases and edits"),
    "a chain of runs": ({"method": "as_run"}, "method is 'as_run', a chain of runs"),
    "no such layer": ({"trains": ("layer9",)}, "no layer is called 'layer9'; this architecture has 0, 1, 3"),
    "regression": ({"retain": (RETAIN[0], RETAIN[0][:, 0])}, "retain: labels are float32 [160]; they are class indices"),
    "three values": ({"forget": TensorDataset(*FORGET, FORGET[1])}, "forget has 3 tensors; it takes a torch Dataset"),
    "a number": ({"forget": 7}, "forget is a int; it takes a torch Dataset"),
    "no examples": ({"forget": (FORGET[0][:0], FORGET[1][:0])}, "forget has no examples"),
    "bytes that are no images": ({"forget": (FORGET[0].byte(), FORGET[1])}, "uint8 is for images [N, channels, height, width]"),
    "mean of floats": ({"mean": (0.5,)}, "mean and std normalise uint8 images"),
    "the best of nothing": ({"keep": "best"}, "keep is best, which selects by validation accuracy; it takes validation="),
    "numbers of a recipe": ({"method": (), "epochs": 2}, "epochs: a recipe holds its numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_one_line(case: str) -> None:
    changes, words = REFUSED[case]
    given: dict[str, Any] = {
        "original": mlp(),
        "retain": RETAIN,
        "forget": FORGET,
        "method": "model_4",
        "epochs": 1,
        "batch_size": 32,
    } | changes
    if isinstance(given["method"], tuple):
        del given["batch_size"]
    with pytest.raises(lethe.UserError) as caught:
        lethe.unlearn(given.pop("original"), **given)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["mean", "std"])
@pytest.mark.parametrize("value", [0.5, ("a", "b"), None, (0.5, 125.0), (0.5, -0.1), (0.5, float("nan")), (0.5, 0.5, 0.5), (0.5, 0.0)])
def test_normalisation_is_of_pixels_between_0_and_1(name: str, value: Any) -> None:
    images = {"retain": (torch.zeros(4, 2, 8, 8, dtype=torch.uint8), torch.zeros(4).long())}
    if value is None or (name == "mean" and value == (0.5, 0.0)):
        as_data(images, **{name: value})
        return
    with pytest.raises(lethe.UserError, match=rf"^{name} (is|has) .*(it takes (one number|numbers)|the images have 2 channels)"):
        as_data(images, **{name: value})


# --- a recipe of one's own -----------------------------------------------------------------------------------------------


def own() -> tuple[lethe.Phase, ...]:
    terms = (lethe.Term("retain"), lethe.Term("forget", weight=lethe.Ramp(-0.5)))
    return (lethe.Phase("joint", 3, terms, 32, lethe.Constant(0.01), lethe.Alternate(), optimizer=lethe.SGD(0.9, 0.0)),)


def test_a_loop_of_ones_own() -> None:
    model, losses = mlp(), []
    for epoch in lethe.run(own(), model, {"retain": RETAIN, "forget": FORGET}):
        losses.append(epoch.losses.get("retain"))
    assert losses[0] is None and len(losses) == 4
    assert same(state(model), state(lethe.unlearn(mlp(), retain=RETAIN, forget=FORGET, method=own())))


def phase(**changes: Any) -> lethe.Phase:
    return dataclasses.replace(lethe.Phase("up", 1, (lethe.Term("retain"),), 32, optimizer=lethe.SGD(0.9, 0.0)), **changes)


UNRUN: dict[str, tuple[Any, dict[str, Any], str]] = {
    "a name": ("hybrid_4", {}, "the recipe is 'hybrid_4'; it takes a tuple of phases and edits"),
    "names": (["model_1"], {}, "the recipe has 'model_1' in it; it takes a tuple of phases and edits"),
    "a phase": (phase(), {}, "the recipe is Phase(name='up', "),
    "a class": ((lethe.Reinitialise,), {}, "the recipe has <class 'lethe.recipes.weight_edits.Reinitialise'> in it"),
    "nothing": ((), {}, "the recipe is empty; it takes a tuple of phases and edits"),
    "no optimizer": ((phase(optimizer=None),), {}, "phase up has no optimizer, and no phase before it has one; it takes optimizer="),
    "torch's optimizer": ((phase(optimizer=torch.optim.SGD),), {}, "phase up: optimizer is <class 'torch.optim.sgd.SGD'>; it takes"),
    "a rate": ((phase(lr=0.01),), {}, "phase up: lr is 0.01; it takes a schedule, e.g. Constant(0.01)"),
    "a layer": ((phase(trains=("3",)),), {}, "phase up: trains is ('3',); it takes a choice of parameters"),
    "one stream": ((phase(order=lethe.Alternate()),), {}, "phase up: order is Alternate(ratio=1, until='shortest'), which does not take"),
    "one term": ((phase(terms=lethe.Term("retain")),), {}, "phase up: terms is Term("),
    "no terms": ((phase(terms=()),), {}, "phase up: terms is (); it takes a tuple of terms"),
    "no batch": ((phase(batch_size=0),), {}, "phase up: batch_size is 0; it takes a whole number from 1 on"),
    "half an epoch": ((phase(epochs=0.5),), {}, "phase up: epochs is 0.5; it takes a whole number from 0 on"),
    "a misspelled word": ((phase(keep="Best"),), {}, "phase up: keep is 'Best'; it takes last, best"),
    "a split": ((phase(terms=(lethe.Term("test"),)),), {}, "phase up: stream is 'test'; it takes retain, forget, train"),  # type: ignore[arg-type]
    "a kind of loss": ((phase(terms=(lethe.Term("retain", lethe.CrossEntropy),)),), {}, "phase up: the loss of retain is <class"),  # type: ignore[arg-type]
    "one image a class": (
        (phase(stop=LossOfUnseen()),),
        {"data": {"retain": RETAIN, "forget": FORGET, "validation": (TEST[0][:3], torch.arange(3))}},
        "validation has 3 images, one of a class at most; ",
    ),
    "never measured": ((phase(),), {"evaluate_every": 0}, "evaluate_every is 0; it takes a whole number from 1 on"),
    "a word as seed": ((phase(),), {"seed": "a"}, "seed is 'a'; it takes a whole number from 0 to 4294967295"),
    "half a seed": ((phase(),), {"seed": 1.5}, "seed is 1.5; it takes a whole number"),
    "no data": ((phase(),), {"data": {}}, "data has no examples; it takes those of retain, forget, validation, test"),
    "no dict": ((phase(),), {"data": (RETAIN, FORGET)}, "data is a tuple; it takes a dict of examples by split"),
    "no such split": (
        (phase(),),
        {"data": {"retain": RETAIN, "val": TEST}},
        "data has 'val'; nearest: validation; it takes retain, forget, ",
    ),
    "validation alone": ((phase(),), {"data": {"validation": TEST}}, "phase up trains on retain, which is not given"),
    "no model": ((phase(),), {"model": "model.pth"}, "model is a str; it takes a torch Module"),
}


@pytest.mark.parametrize("case", UNRUN)
def test_what_can_not_be_run_is_one_line(case: str) -> None:
    recipe, changes, words = UNRUN[case]
    given: dict[str, Any] = {"model": mlp(), "data": {"retain": RETAIN, "forget": FORGET}} | changes
    before = state(given["model"]) if isinstance(given["model"], nn.Module) else []
    with pytest.raises(lethe.UserError) as caught:
        next(lethe.run(recipe, **given))
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)
    assert not before or same(before, state(given["model"]))


@pytest.mark.parametrize("name", ["gpu", "cuda:77", 1.5])
def test_a_device_that_does_not_exist_is_named(name: Any) -> None:
    says = rf"^device is '{name}', which torch can't use here \(.*\); it takes cpu, cuda, "
    with pytest.raises(lethe.UserError, match=says):
        lethe.unlearn(mlp(), retain=RETAIN, forget=FORGET, device=name)
    with pytest.raises(lethe.UserError, match=says):
        lethe.evaluate(mlp(), retain=RETAIN, forget=FORGET, test=TEST, device=name)


WORDS_OF_FOUR = (torch.arange(160).view(40, 4) % 20, torch.arange(40) % 3)


@pytest.mark.parametrize("made", [Perturbed(), Adversarial(), Differentiable(), Views(), SensitivityRose()])
def test_token_ids_are_not_moved_and_only_images_are_cropped(made: Any) -> None:
    """Nor do they have gradients; losses that need no other inputs take them."""
    model = nn.Sequential(nn.Embedding(21, 8), nn.Flatten(), nn.Linear(32, 3))
    data = {"retain": WORDS_OF_FOUR, "forget": (WORDS_OF_FOUR[0][:9] + 1, WORDS_OF_FOUR[1][:9])}
    terms = (lethe.Term("forget", inputs=None if isinstance(made, SensitivityRose) else made),)
    own = phase(terms=terms, batch_size=4, stop=made if isinstance(made, SensitivityRose) else None)
    says = (
        "augments images"
        if isinstance(made, Views)
        else "moves inputs or takes gradients by them; it takes uint8 images or floats, not int64"
    )
    with pytest.raises(lethe.UserError, match=f"^phase up {says}"):
        next(lethe.run((own,), model, data))
    assert len([*lethe.run((phase(batch_size=4),), model, data)]) == 2
    if not isinstance(made, Views):  # floats of any shape
        assert len([*lethe.run((own,), mlp(), {"retain": RETAIN, "forget": FORGET})]) == 2


@pytest.mark.parametrize("method", ["eu_k", "kde"])
def test_a_head_is_really_re_initialised(method: str) -> None:
    """In the caller's own network, of which nobody gives a randomly initialised copy; equal seeds give equal ones."""
    original = mlp()

    def head(seed: int, **more: float) -> Tensor:
        numbers: dict[str, Any] = {"reinit": ("head",), "trains": ("head",), "lr": 1e-12, "batch_size": 32} | more
        model = lethe.unlearn(original, retain=RETAIN, forget=FORGET, validation=VALIDATION, method=method, seed=seed, **numbers)
        return model.get_parameter("3.weight").detach()

    assert torch.equal(head(0), head(0))
    assert not torch.allclose(head(0), head(1), atol=0.01)
    assert not torch.allclose(head(0), original.get_parameter("3.weight"), atol=0.01)
    halfway = (head(0) + original.get_parameter("3.weight").detach()) / 2
    assert torch.allclose(head(0, reinit_share=0.5), halfway, atol=1e-6)


def test_a_recipe_that_re_initialises_begins_at_new_weights() -> None:
    """By `random_init` too, which in a workspace is where training from scratch begins: in `unlearn`, never at the original."""
    original = mlp()
    few: dict[str, Any] = {"retain": RETAIN, "forget": FORGET}
    drawn = lethe.unlearn(original, method=(lethe.Reinitialise(),), seed=3, **few)
    expected = redrawn(original, unrelated_seed(3))
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in drawn.state_dict().items())
    assert not torch.allclose(drawn.get_parameter("3.weight"), original.get_parameter("3.weight"), atol=0.01)
    head = lethe.unlearn(original, method=(ReinitialiseLayers(("head",)),), seed=3, **few)
    assert torch.equal(head.get_parameter("3.weight"), drawn.get_parameter("3.weight"))
    assert torch.equal(head.get_parameter("0.weight"), original.get_parameter("0.weight"))


class Keeping(nn.Module):
    """Keeps the activations of its last pass, which can't be copied while a graph hangs on them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(20, 32), nn.Linear(32, 3)

    def forward(self, inputs_BD: Tensor) -> Tensor:
        self.hidden_BH = torch.relu(self.first(inputs_BD))
        out: Tensor = self.last(self.hidden_BH)
        return out


def test_a_teacher_that_is_first_looked_at_between_two_passes() -> None:
    """It is drawn by the network that was given, not by what the student has become."""
    given: dict[str, Any] = {"retain": RETAIN, "forget": FORGET, "method": "bad_teacher", "batch_size": 24, "forget_batch_size": 8}
    model = lethe.unlearn(Keeping(), **given)
    assert all(parameter.isfinite().all() for parameter in model.parameters())


def test_a_method_registered_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))

    @lethe.register_method(source="a paper")
    def pushed(*, epochs: Annotated[int, Field(ge=0)] = 3, scale: Annotated[float, Field(le=0)] = -0.5) -> tuple[lethe.Phase, ...]:
        terms = (lethe.Term("retain"), lethe.Term("forget", weight=lethe.Ramp(scale)))
        return (lethe.Phase("joint", epochs, terms, 32, lethe.Constant(0.01), lethe.Alternate(), optimizer=lethe.SGD(0.9, 0.0)),)

    few: dict[str, Any] = {"retain": RETAIN, "forget": FORGET}
    assert same(state(lethe.unlearn(mlp(), method="pushed", **few)), state(lethe.unlearn(mlp(), method=own(), **few)))
    with pytest.raises(lethe.UserError, match="scale is 1; it takes a number <= 0"):
        lethe.unlearn(mlp(), method="pushed", scale=1, **few)


# --- the score ------------------------------------------------------------------------------------------------------------


def trained(*pairs: Pair, epochs: int = 30) -> nn.Module:
    model = mlp()
    examples = torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
    recipe = (lethe.Phase("train", epochs, (lethe.Term("retain"),), 32, lethe.Constant(0.05), optimizer=lethe.SGD(0.9, 0.0)),)
    for _ in lethe.run(recipe, model, {"retain": examples}, evaluate=lambda model, data: {}):
        pass
    return model


def test_a_score_next_to_several_references() -> None:
    original, references = trained(RETAIN, FORGET), [trained(RETAIN, epochs=epochs) for epochs in (29, 30)]
    before = state(original)
    splits = {"retain": RETAIN, "forget": FORGET, "validation": VALIDATION, "test": TEST}
    score = lethe.evaluate(original, references=references, original=original, **splits)  # type: ignore[arg-type]
    assert same(before, state(original))
    told = json.loads(score.to_json())
    assert told["references"] == 2 and told["verdict"] == score.verdict
    assert score.verdict == "remembers" and told["judged"]["memory_left"]["value"] == 100.0
    assert "verdict: remembers. It knows the forget images better" in str(score)
    assert told["accuracy"]["forget"] == 100.0
    lines = score.table().splitlines()
    assert [line.split()[0] for line in lines[1:4]] == ["original", "retrained", "unlearned"]
    assert score.accuracy["forget"] == 100.0
    assert score.measures["distance.forget"].estimate and score.measures["klom"].missing.startswith("needs at least 64 retrained")
    perfect = lethe.evaluate(references[0], references=references[1:], original=original, **splits)  # type: ignore[arg-type]
    assert perfect.verdict in ("as_retrained", "cannot_tell")
    alone = lethe.evaluate(original, retain=RETAIN, forget=FORGET, test=TEST)
    assert alone.verdict == "cannot_tell" and alone.meaning == "There is no retrained model to compare with."
    assert "needs at least 1 retrained model" in alone.to_json()


def test_the_row_of_several_references_is_their_mean() -> None:
    references = [trained(RETAIN, epochs=1), trained(RETAIN, epochs=3)]
    splits: dict[str, Any] = {"retain": RETAIN, "forget": FORGET, "test": TEST}
    row = lethe.evaluate(mlp(), references=references, **splits).measured["retrained"]
    alone = [lethe.evaluate(each, **splits).measured["unlearned"] for each in references]
    assert alone[0].gap != alone[1].gap
    assert row.gap == pytest.approx(sum(each.gap for each in alone) / 2, abs=1e-6)
    for split in ("retain", "forget", "test"):
        assert row.accuracy[split] == pytest.approx(sum(each.accuracy[split] for each in alone) / 2)
        assert row.loss[split] == pytest.approx(sum(each.loss[split] for each in alone) / 2)


UNMEASURED: dict[str, tuple[dict[str, Any], str]] = {
    "no model": ({"model": "model.pth"}, "model is a str; it takes a torch Module that returns logits"),
    "one reference": ({"references": mlp()}, "references is a Sequential; it takes a list of models"),
    "a number": ({"references": 1}, "references is a int; it takes a list of models"),
    "a path": ({"references": [mlp(), "retrained.pth"]}, "reference 1 is a str; it takes a torch Module"),
    "weights": ({"original": mlp().state_dict()}, "original is a OrderedDict; it takes a torch Module"),
    "other inputs": ({"references": [nn.Linear(9, 3)]}, "reference 0 (Linear) fails on inputs [B, 20]: "),
    "two inputs": ({"original": Two()}, "original: Two.forward takes 2 inputs"),
    "too few classes": ({"original": nn.Linear(20, 2)}, "labels run from 0 to 2, and original (Linear) has 2 classes; it takes 0 to 1"),
    "no forget": ({"forget": None}, "forget is None; it takes a torch Dataset"),
    "no test": ({"test": None}, "test is None; it takes a torch Dataset"),
    "no shape": ({"references": [nn.LazyLinear(3)]}, "reference 0: weight has no shape yet"),
}


@pytest.mark.parametrize("case", UNMEASURED)
def test_what_can_not_be_measured_is_one_line(case: str) -> None:
    changes, words = UNMEASURED[case]
    given: dict[str, Any] = {"model": mlp(), "retain": RETAIN, "forget": FORGET, "test": TEST, "references": [mlp()]} | changes
    with pytest.raises(lethe.UserError) as caught:
        lethe.evaluate(given.pop("model"), **given)
    assert str(caught.value).startswith(words) and "\n" not in str(caught.value)


@pytest.mark.parametrize("which", ["unlearned", "reference 0", "original"])
def test_a_model_that_diverged_is_named(which: str) -> None:
    broken = mlp()
    with torch.no_grad():
        broken.get_parameter("0.weight")[0] = torch.nan
    model, retrained, original = (broken if each == which else mlp() for each in ("unlearned", "reference 0", "original"))
    with pytest.raises(lethe.UserError, match=f"^{which}: the model's logits are not all finite: it diverged$"):
        lethe.evaluate(model, references=[retrained], original=original, retain=RETAIN, forget=FORGET, test=TEST)


def test_a_measure_registered_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measures, "_REGISTERED", {each.id: each for each in measures.registered()})

    @lethe.register_measure(id="confidence.forget", about="mean probability of the true class on forget")
    def confidence(context: lethe.EvaluationContext) -> lethe.Estimate:
        return context.mean(np.exp(context.model.log_p[context.rows("forget")]))

    score = lethe.evaluate(trained(RETAIN, FORGET), retain=RETAIN, forget=FORGET, test=TEST)
    estimate = score.measures["confidence.forget"].estimate
    assert estimate and estimate.value > 0.9


def test_examples_are_python() -> None:
    assert ast.parse(lethe.__doc__.split("\n\n")[1].replace("    ", "")) if lethe.__doc__ else False


def test_a_registered_method_takes_its_arguments() -> None:
    @lethe.register_method(source="a test")
    def ascend(*, epochs: Epochs, scale: Scale = -0.1) -> Recipe:
        """Ascend on forget."""
        return (lethe.Phase("up", epochs, (lethe.Term("forget", weight=scale),), 32, lethe.Constant(0.01), optimizer=lethe.SGD(0.0, 0.0)),)

    seen: list[lethe.Epoch] = []
    try:
        lethe.unlearn(mlp(), retain=RETAIN, forget=FORGET, method="ascend", epochs=2, on_epoch=seen.append)
        assert [(epoch.phase, epoch.scale) for epoch in seen] == [("start", None), ("up", -0.1), ("up", -0.1)]
        for given, says in (
            ({}, "epochs is missing; it takes"),
            ({"epochs": -1}, "epochs is -1; it takes"),
            ({"epoch": 1}, "nearest: epochs"),
        ):
            with pytest.raises(lethe.UserError, match=says):
                lethe.unlearn(mlp(), retain=RETAIN, forget=FORGET, method="ascend", **given)  # type: ignore[arg-type]
    finally:
        registry._REGISTERED.pop("ascend")


def test_perturbed_copies_are_as_many_as_the_key_says_by_default() -> None:
    assert load(["--run.workspace", os.devnull], params=default_params()).evaluate.perturbed == inference.PERTURBED
