"""The public functions of `import lethe`: a model and data of one's own in, an unlearned model and its score out.

N examples, C classes.
"""

import copy
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
from torch.nn import Module
from torch.nn.parameter import is_lazy

from lethe._util.errors import UserError
from lethe.data.device_data import Data, RawInputs
from lethe.data.splits import SPLITS
from lethe.data.user_data import ACCEPTS, Examples, as_data, check_model
from lethe.engine import engine, recipe_check
from lethe.engine.engine import Epoch
from lethe.engine.options import Network, RunOptions
from lethe.evaluation import inference, reference, representations, score
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.measures import TAUS
from lethe.evaluation.verdict.words import CANNOT_TELL
from lethe.models.redraw import redrawn, unrelated_seed
from lethe.recipes.blocks import resolve
from lethe.recipes.recipe import Recipe
from lethe.reporting import console_tables

log = logging.getLogger("lethe")

UserData: TypeAlias = Mapping[str, Examples | None] | Data


def unlearn(
    original: Module,
    *,
    retain: Examples,
    forget: Examples,
    validation: Examples | None = None,
    method: str | Recipe = "hybrid_4",
    seed: int = 0,
    on_epoch: Callable[[Epoch], object] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: torch.device | str | None = None,
    evaluate_every: int = 1,
    **arguments: Any,
) -> Module:
    """Return a copy of a classifier that has unlearned the forget set.

    Args:
        original: takes a batch of inputs [B, ...], returns logits [B, C]. Its weights, buffers, modes and `requires_grad` do not change.
        retain: training examples to keep, without those of `forget`: a torch Dataset of (input, label), a pair of tensors, or a callable
            that returns a DataLoader. Float inputs are taken as they are; uint8 images [N, channels, height, width] are scaled to [0, 1].
        forget: training examples to forget.
        validation: examples that no model was trained on; their accuracy is in every Epoch, and `keep="best"` selects by it.
        method: a method's name, or a recipe.
        seed: of the order of batches, of dropout, and of the randomly initialised network that edits and losses take: a copy of the
            original whose modules have drawn new weights (`reset_parameters`). Equal seeds give equal weights.
        on_epoch: called with an Epoch before training and after each epoch: losses, accuracies in percent, seconds.
        mean: of each channel of uint8 images, pixels scaled to [0, 1]: from 0 to 1.
        std: the same: above 0, at most 1.
        device: where to compute; by default where the original's weights are.
        evaluate_every: epochs between measurements; the last epoch of a phase is always measured.
        **arguments: of the method, in place of its defaults in params.yaml: `peak=-0.5`, `epochs=20`. `trains` takes names of modules,
            or "all", "head", "last_block", "early", which are resolved for the network and logged by the logger "lethe".

    Returns:
        A new model of the same class, on `device`.

    Raises:
        UserError: an argument, the model or the data is not what is accepted; the message is one line.
        Diverged: a loss became NaN or infinite.
    """
    place = _device(original, device, "original")
    student = copy.deepcopy(original).to(place)
    _check_given(retain=retain, forget=forget)
    data = _data({"retain": retain, "forget": forget, "validation": validation}, student, mean, std)
    recipe = _recipe(method, arguments, student) if isinstance(method, str) else _own(method, arguments)

    def fresh() -> Module:  # the model given to `run` is where training from scratch begins by default; here it is the original
        return redrawn(original, unrelated_seed(seed)).to(data.device)

    for epoch in run(recipe, student, data, seed=seed, evaluate_every=evaluate_every, random_init=fresh):
        if on_epoch is not None:
            on_epoch(epoch)
    return student


def run(
    recipe: Recipe,
    model: Module,
    data: UserData,
    *,
    seed: int = 0,
    evaluate: Callable[[Module, Data], Mapping[str, float]] | None = None,
    evaluate_every: int = 1,
    random_init: Network | None = None,
) -> Iterator[Epoch]:
    """Train `model` in place by a recipe, and yield an Epoch before training and after each epoch.

    Args:
        recipe: phases and edits, in order.
        model: takes a batch of inputs [B, ...], returns logits [B, C]. It is changed.
        data: examples of retain and forget, and of validation if there are, by split; as for `unlearn`.
        seed: of the order of batches and of dropout.
        evaluate: measures (model, data) -> metric by name; by default accuracy in percent and loss in nats of each split but test.
        evaluate_every: epochs between measurements; the last epoch of a phase is always measured.
        random_init: what edits and losses take for a randomly initialised network, or a function that makes it where one is needed. By
            default their `random_init` is `model` as it is given, where training from scratch begins, and their `fresh_init`, which the
            built-in methods take, a copy of it whose modules have drawn new weights (`reset_parameters`).

    Yields:
        Epochs, numbered over all phases; number 0 is the model before training.

    Raises:
        UserError: the recipe, the model or the data is not what is accepted.
        Diverged: a loss became NaN or infinite, or what `evaluate` measured after an epoch.
    """
    _check_module(model, "model")
    recipe_check.whole_number("seed", seed, 0, 2**32 - 1)
    recipe_check.whole_number("evaluate_every", evaluate_every, 1)
    held = data if isinstance(data, Data) else _data(data, model)
    recipe_check.check(recipe, model, held, evaluate is None)
    _log_layers(recipe, model)
    measure = evaluate or inference.evaluator(
        held.for_selection(recipe), [name for name in SPLITS if name in held.splits and name != "test"]
    )
    options = RunOptions(evaluate=measure, evaluate_every=evaluate_every, seed=int(seed), random_init=random_init)
    yield from engine.run(recipe, model, held, options)


@dataclass(frozen=True, eq=False)
class Score:
    """Every measure of a model, next to the original and to models retrained without the forget set."""

    measured: Mapping[str, score.Score]  # of original, retrained, unlearned, as far as they were given
    sizes: Mapping[str, int]  # of the splits

    @property
    def measures(self) -> Mapping[str, score.MeasureResult]:
        """Measure id -> its estimate with interval and the references' own, or what it lacks."""
        return self.measured["unlearned"].measures

    @property
    def accuracy(self) -> Mapping[str, float]:
        """Percent, by split."""
        return self.measured["unlearned"].accuracy

    @property
    def verdict(self) -> str:
        """In one word whether the model can be distinguished from the references: one of `lethe.evaluation.verdict.words.WORDS`.

        `as_retrained`, `remembers`, `over_forgets`, `different`; `cannot_tell` without references, and where they and the examples do
        not suffice; `reference_unfit` where the references did not learn what they were trained on."""
        judged = self.measured["unlearned"].verdict
        return judged.word if judged else CANNOT_TELL

    @property
    def meaning(self) -> str:
        """What the verdict means and what decided it, in whole sentences."""
        judged = self.measured["unlearned"].verdict
        return judged.meaning if judged else "There is no retrained model to compare with."

    def table(self) -> str:
        """Accuracies in percent by split, one model a line, with the distance to the retrained model in points in brackets."""
        return console_tables.accuracy_table([*self.measured.items()], self.measured["unlearned"].unfit)

    def to_json(self) -> str:
        """Everything, as JSON: the same keys as scores/*.json of a workspace."""
        return json.dumps({"verdict": self.verdict, **self.measured["unlearned"].to_json()}, indent=2)

    def __str__(self) -> str:
        return f"{self.table()}\nverdict: {self.verdict}. {self.meaning}"


def evaluate(
    model: Module,
    *,
    retain: Examples,
    forget: Examples,
    test: Examples,
    validation: Examples | None = None,
    references: Sequence[Module] = (),
    original: Module | None = None,
    at_random: bool = False,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: torch.device | str | None = None,
) -> Score:
    """Measure whether a model has forgotten, next to models that never saw the forget set.

    Args:
        model: the unlearned model; it does not change.
        retain: as for `unlearn`.
        forget: as for `unlearn`.
        test: examples that no model was trained on.
        validation: more of them.
        references: models retrained without forget, from one on; from 8 on there are intervals over models.
        original: the model before unlearning.
        at_random: whether forget was drawn at random from the training examples of its classes; with few references, the verdict then
            notices more models that remember.
        mean: as for `unlearn`.
        std: as for `unlearn`.
        device: where to compute; by default where the model's weights are.

    Returns:
        The score. Measures that take more references or splits than given say so in place of a number.

    Raises:
        UserError: a model or the data is not what is accepted, or a model's logits are not finite.
    """
    place = _device(model, device, "model")
    _check_given(retain=retain, forget=forget, test=test)
    if isinstance(references, Module) or not isinstance(references, Iterable):
        raise UserError(f"references is a {type(references).__name__}; it takes a list of models")
    data = _data({"retain": retain, "forget": forget, "validation": validation, "test": test}, model, mean, std, place)
    others = {f"reference {number}": each for number, each in enumerate(references)}
    for name, each in (others | ({} if original is None else {"original": original})).items():
        _check_module(each, name)
        check_model(each, data, name)
    theirs = [_table(name, each, data, place) for name, each in others.items()]
    start = _table("original", original, data, place) if original is not None else None
    measured: dict[str, score.Score] = {}
    short_of = reference.unfit(start, theirs) if start is not None else ""
    unfit = f"the retrained model is no reference: it gets {short_of}, so nothing is compared with it" if short_of else ""
    compared = [] if unfit else theirs
    if start is not None:
        measured["original"] = replace(score.score_model(start, compared, start, at_random=at_random), unfit=unfit)
    if theirs:
        accuracy, loss = (_means(each) for each in zip(*map(score.accuracy_and_loss, theirs), strict=True))
        gap = round(accuracy["retain"] - accuracy["forget"], score.DIGITS)
        measured["retrained"] = replace(score.score_model(theirs[0], compared[1:], start), accuracy=accuracy, loss=loss, gap=gap)
    measured["unlearned"] = replace(
        score.score_model(_table("unlearned", model, data, place), compared, start, at_random=at_random), unfit=unfit
    )
    return Score(measured, {name: len(index) for name, index in data.splits.items()})


def _table(name: str, model: Module, data: Data, device: torch.device) -> LogitsTable:
    """The model's logits of all examples, a probe of its features, and for uint8 images its answers on perturbed ones."""
    network = copy.deepcopy(model).to(device)
    parts = [part for part in SPLITS if part in data.splits]
    ids = [f"{part}/{number}" for part in parts for number in range(len(data.splits[part]))]
    split = np.repeat([SPLITS.index(part) for part in parts], [len(data.splits[part]) for part in parts]).astype(np.uint8)
    everything = torch.arange(len(ids), device=data.device)
    logits, features = inference.logits_and_features(network, data, everything)
    if not logits.isfinite().all():
        raise UserError(f"{name}: the model's logits are not all finite: it diverged")
    labels, columns = data.labels_N.cpu().numpy(), dict[str, Any]()
    if features is not None:
        columns["probe"] = representations.probe(features.numpy(), labels, data.splits["retain"].cpu().numpy(), logits.shape[1])
    if not isinstance(data, RawInputs):
        forget, copies = data.splits["forget"].cpu().numpy(), inference.PERTURBED
        columns |= inference.perturbed_columns(network, data, forget, ids, TAUS, copies)
    return LogitsTable(name, tuple(ids), labels, split, logits.cpu().numpy(), columns)


def _means(models: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean over models, by split."""
    return {split: sum(one[split] for one in models) / len(models) for split in models[0]}


# --- what is handed in --------------------------------------------------------------------------------------------------


def _check_module(model: Module, name: str) -> None:
    if not isinstance(model, Module):
        raise UserError(f"{name} is a {type(model).__name__}; it takes a torch Module that returns logits")
    for key, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise UserError(f"{name}: {key} has no shape yet; a lazy module takes a batch once before it is handed in")


def _check_given(**splits: Examples | None) -> None:
    for name, examples in splits.items():
        if examples is None:
            raise UserError(f"{name} is None; {ACCEPTS}")


def _device(model: Module, asked: torch.device | str | None, name: str) -> torch.device:
    _check_module(model, name)
    if asked is not None:
        try:
            return torch.zeros(0, device=asked).device
        except Exception as error:  # each backend that torch was built without, or that finds no hardware, has its own
            what = " ".join(str(error).split())[:120]
            raise UserError(f"device is {str(asked)!r}, which torch can't use here ({what}); it takes cpu, cuda, cuda:1, mps") from None
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _data(
    splits: Mapping[str, Examples | None],
    model: Module,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: torch.device | None = None,
) -> Data:
    dtype = next((parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()), torch.float32)
    data = as_data(splits, device=device or _device(model, None, "model"), dtype=dtype, mean=mean, std=std)
    check_model(model, data)
    return data


def _recipe(name: str, arguments: Mapping[str, Any], model: Module) -> Recipe:
    """The method's recipe by its defaults and the given arguments."""
    try:
        from lethe.config.default_recipe import default_recipe
    except ModuleNotFoundError as error:
        raise UserError(f"method is {name!r}, whose defaults take {error.name} to read, which is not installed; a recipe works") from None
    return default_recipe(name, arguments, model)


def _own(recipe: Recipe, arguments: Mapping[str, Any]) -> Recipe:
    if not isinstance(recipe, Sequence):
        raise UserError(f"method is a {type(recipe).__name__}; it takes a method's name, or a recipe: {recipe_check.RECIPE}")
    if arguments:
        raise UserError(f"{', '.join(arguments)}: a recipe holds its numbers; arguments are for a method's name")
    return tuple(recipe)


def _log_layers(recipe: Recipe, model: Module) -> None:
    """Log which modules the symbols in a recipe stand for in this network."""
    for name in dict.fromkeys(re.findall(r"'(head|last_block|early)'", repr(recipe))):
        log.info("%s of %s: %s", name, type(model).__name__, ", ".join(resolve(model, name)))
