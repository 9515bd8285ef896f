"""The only place that steps a model: runs the phases and edits of a recipe, in order.

It knows no method, metric, tracker or configuration. Loggers and displays iterate over the epochs that `run` yields.
"""

import copy
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module
from torch.nn.functional import cross_entropy
from torch.nn.modules.batchnorm import _BatchNorm

from lethe._util.errors import Diverged
from lethe.data.device_data import Batch, Data
from lethe.engine.forward_pass import with_logits
from lethe.engine.frozen_references import FrozenReferences
from lethe.engine.options import Evaluate, RunOptions
from lethe.engine.run_state import State
from lethe.engine.work import Work
from lethe.models.redraw import redrawn, unrelated_seed
from lethe.recipes.losses import Loss
from lethe.recipes.recipe import Phase, Recipe, Stream


@dataclass(frozen=True)
class Epoch:
    """Record of one epoch, of one edit, or of the start before any step.

    Args:
        global_epoch: counts epochs and edits over all phases; 0 is the start.
        phase: name of the phase or edit; "start" before the first step.
        epoch: index within the phase, from 0.
        progress: epoch / epochs of the phase, in [0, 1): the time that schedules are functions of.
        learning_rate: of the epoch's last step.
        scale: weight of the forget loss.
        losses: mean over the steps of the training loss, by stream: a single term's loss without its weight, in nats where it is a
            cross-entropy; of several terms on one stream the sum of weight x loss, which is minimised.
        metrics: what `evaluate` returned; empty where the epoch was not evaluated.
        steps: optimizer steps.
        images: examples seen by those steps, repeats included.
        trains: number of weights that could change.
        flops: floating-point operations of the steps, or of the edit (`work.counted`); None where they are not counted.
        seconds: duration of the steps, or of the edit.
        evaluate_seconds: duration of the evaluation.
    """

    global_epoch: int
    phase: str
    epoch: int
    progress: float
    learning_rate: float | None = None
    scale: float | None = None
    losses: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    steps: int = 0
    images: int = 0
    trains: int = 0
    flops: int | None = None
    seconds: float = 0.0
    evaluate_seconds: float = 0.0


def run(recipe: Recipe, model: Module, data: Data, options: RunOptions = RunOptions(), *, state: State | None = None) -> Iterator[Epoch]:
    """Run `recipe` on `model`, in place; yield an Epoch before the first step, and after every epoch and every edit.

    Args:
        recipe: phases and edits, in order.
        model: network whose weights are changed; on the device of `data`.
        data: inputs [N, ...], labels [N] and the indices of each split.
        options: what is measured, seed, precision.
        state: progress of the run, kept up to date at every yield. One read from a file (`Resume.loaded`) makes the run continue there.

    Yields:
        What an epoch or an edit did, with the metrics of `options.evaluate`; the model has the weights after it.

    Raises:
        Diverged: a loss, or a metric of `options.evaluate` after an epoch, is NaN or infinite.
        ValueError: a phase keeps the running optimizer and none is running, or keeps its best epoch and `evaluate` returns no
            validation.accuracy.
    """
    state = State() if state is None else state
    start = copy.deepcopy(model).eval().requires_grad_(False)
    state.restore(model, recipe)
    fresh = options.fresh_init or options.random_init or partial(redrawn, start, unrelated_seed(options.seed))
    refs = FrozenReferences(start, options.random_init, fresh, state.kept)
    if state.global_epoch < 0:
        metrics, seconds = _timed(options.evaluate, model, model, data)
        state.global_epoch = 0
        for phase in (step for step in recipe if isinstance(step, Phase) and step.keep == "best"):
            phase.rank(metrics)  # fails before the first step where validation is not evaluated
        yield Epoch(0, "start", 0, 0.0, metrics=metrics, evaluate_seconds=seconds)
    for step in recipe[state.step :]:
        if isinstance(step, Phase):
            yield from _phase(step, model, data, refs, state, options)
        elif state.epoch == 0:
            began = time.perf_counter()
            with _counted(options, model, refs) as work:
                step(model, data, refs)
            _wait(data.device)
            took = time.perf_counter() - began
            metrics, seconds = _timed(options.evaluate, model, model, data)
            state.global_epoch, state.epoch = state.global_epoch + 1, 1
            name, flops = step.name, work.flops if options.count_work else None
            yield Epoch(state.global_epoch, name, 0, 0.0, metrics=metrics, flops=flops, seconds=took, evaluate_seconds=seconds)
        state.step, state.epoch, state.best, state.best_value, state.measured = state.step + 1, 0, None, -math.inf, []


def _phase(phase: Phase, model: Module, data: Data, refs: FrozenReferences, state: State, options: RunOptions) -> Iterator[Epoch]:
    if phase.optimizer and state.epoch == 0:
        state.optimizer, state.optimizer_step = phase.optimizer.build(list(model.parameters())), state.step
    if state.epoch == 0:
        state.forget_optimizer = phase.forget_optimizer.build(list(model.parameters())) if phase.forget_optimizer else None
    optimizer = state.optimizer
    left = state.epoch < phase.epochs and not (phase.stop and phase.stop.reached(state.measured))
    began = time.perf_counter()
    with _counted(options, model, refs) as setup:
        hold = phase.constraint(model, data, refs) if phase.constraint and left else None
        change = phase.gradients(model, data, refs) if phase.gradients and left else None
        inputs = {stream: own(data, refs) for stream in phase.streams.values() if left and (own := phase.inputs(stream))}
    lengths = {letter: data.length(stream, phase.size(stream)) for letter, stream in phase.streams.items()}
    for epoch in range(state.epoch, phase.epochs):
        if phase.stop and phase.stop.reached(state.measured):
            break
        if optimizer is None:
            raise ValueError(f"phase {phase.name!r} keeps the running optimizer, and no phase before it has one")
        order = phase.batch_order(lengths, epoch)
        trains = phase.trains(model, epoch / phase.epochs)
        _wait(data.device)
        if epoch:  # what the phase's rules took is the first epoch's; a resumed run has it recorded already
            began, setup = time.perf_counter(), Work()
        with (
            _training(model, trains, phase.batchnorm),
            _seeded(options.seed, state.global_epoch, data.device),
            _counted(options, model, refs) as work,
        ):
            module, source = options.step_inputs(phase, model, data, trains)
            trained = _Trained(phase.lr(epoch / phase.epochs), steps=len(order))
            optimizer.zero_grad(set_to_none=True)
            for letters, learning_rate, losses in _losses(phase, epoch, order, module, source, refs, state, options, trained, inputs):
                acting = state.forget_optimizer if letters == "F" and state.forget_optimizer else optimizer
                for group in acting.param_groups:
                    group["lr"] = learning_rate
                _backward(losses, phase, model)
                if change:
                    change(letters)
                if phase.clip is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), phase.clip)
                acting.step()
                # set_to_none: SGD would move a frozen weight that still has a gradient (decay, momentum)
                optimizer.zero_grad(set_to_none=True)
                if hold:
                    hold()
        means = _means(trained.losses, phase.name, epoch)  # waits for the device
        seconds = time.perf_counter() - began
        if phase.stop:
            state.measured = [*state.measured, phase.stop.measure(model, data, refs)]
        ends = epoch + 1 == phase.epochs or bool(phase.stop and phase.stop.reached(state.measured))
        metrics, evaluate_seconds = _evaluate(phase, epoch, ends, model, module, source, options)
        if (wrong := next((name for name, value in metrics.items() if not math.isfinite(value)), None)) is not None:
            raise Diverged(f"phase {phase.name}, epoch {epoch}: after its {trained.steps} steps {wrong} is {float(metrics[wrong])}")
        if phase.keep == "best" and phase.rank(metrics) > state.best_value:
            state.best_value = phase.rank(metrics)
            state.best = {name: value.clone() for name, value in model.state_dict().items()}
        state.epoch, state.global_epoch = epoch + 1, state.global_epoch + 1
        yield Epoch(
            global_epoch=state.global_epoch,
            phase=phase.name,
            epoch=epoch,
            progress=epoch / phase.epochs,
            learning_rate=trained.learning_rate,
            scale=phase.scale(epoch / phase.epochs),
            losses=means,
            metrics=metrics,
            steps=trained.steps,
            images=trained.images,
            trains=sum(p.numel() for name, p in model.named_parameters() if name in trains),
            flops=setup.flops + work.flops if options.count_work else None,
            seconds=seconds,
            evaluate_seconds=evaluate_seconds,
        )
    if state.best is not None:
        model.load_state_dict(state.best)


@dataclass
class _Trained:
    """Record of the steps of an epoch: losses as (step, stream, value on the device), examples seen, the last learning rate."""

    learning_rate: float
    losses: list[tuple[int, str, Tensor]] = field(default_factory=list)
    steps: int = 0
    images: int = 0


def _losses(
    phase: Phase,
    epoch: int,
    order: list[str],
    module: Module,
    data: Data,
    refs: FrozenReferences,
    state: State,
    options: RunOptions,
    trained: _Trained,
    inputs: Mapping[Stream, Callable[[Any], Any]],
) -> Iterator[tuple[str, float, list[Tensor]]]:
    """Yield letters, learning rate and the loss of each letter, by optimizer step of an epoch; `trained` records the steps."""
    start = epoch / phase.epochs
    streams = {letter: _passes(phase, stream, data, options.seed, state, inputs.get(stream)) for letter, stream in phase.streams.items()}
    terms = {
        letter: [(term, _prepared(term.loss, module, data, refs)) for term in phase.terms if term.letter == letter] for letter in streams
    }
    for step, letters in enumerate(order):
        now = (epoch + step / len(order)) / phase.epochs
        lr = phase.forget_lr if letters == "F" and phase.forget_lr else phase.lr
        learning_rate = lr(now if phase.lr_steps == "batch" else start)
        if lr is phase.lr:
            trained.learning_rate = learning_rate
        losses: list[Tensor] = []
        batches = [next(streams[letter]) for letter in letters]
        with options.autocast():
            for letter, (batch, logits_BC) in zip(letters, with_logits(module, batches, phase), strict=True):
                total = logits_BC.new_zeros((), dtype=torch.float32)
                for term, of_batch in terms[letter]:
                    loss = of_batch(logits_BC.float(), batch, refs)
                    total = total + term.weight_at(now if phase.weight_steps == "batch" else start) * loss
                # several terms are of different kinds: only what is minimised says something of all of them
                trained.losses.append((step, term.stream, (total if len(terms[letter]) > 1 else loss).detach()))
                losses.append(total)
                trained.images += len(batch.labels_B)
                if letter == "R" and (phase.record_losses or phase.draw):
                    _record(state, data, batch, logits_BC)
            if phase.penalty:
                losses[0] = losses[0] + phase.penalty(module, start)
        yield letters, learning_rate, losses


def _backward(losses: list[Tensor], phase: Phase, model: Module) -> None:
    """Gradients of a step: of the sum of its losses, or as the phase combines them."""
    if phase.combine and len(losses) > 1:
        phase.combine(losses, [parameter for parameter in model.parameters() if parameter.requires_grad])
    else:
        torch.stack(losses).sum().backward()


def _prepared(loss: Loss, module: Module, data: Data, refs: FrozenReferences) -> Loss:
    """The loss of an epoch: one that looks at a whole split does so now."""
    prepare = getattr(loss, "prepare", None)
    return prepare(module, data, refs) if prepare else loss


def _record(state: State, data: Data, batch: Batch, logits_BC: Tensor) -> None:
    if state.seen_losses is None:
        state.seen_losses = torch.full((len(data.labels_N),), math.nan, device=data.device)
    state.seen_losses[batch.index_B] = cross_entropy(logits_BC.detach().float(), batch.labels_B, reduction="none")


def _evaluate(
    phase: Phase, epoch: int, last: bool, model: Module, module: Module, data: Data, options: RunOptions
) -> tuple[Mapping[str, float], float]:
    """Metrics of an epoch and the seconds they took; none where the epoch is not evaluated."""
    if not (last or (epoch + 1) % options.evaluate_every == 0 or phase.keep == "best"):
        return {}, 0.0
    evaluate = options.evaluate if last else options.evaluate_sample or options.evaluate
    return _timed(evaluate, model, module, data)


def _passes(phase: Phase, stream: Stream, data: Data, seed: int, state: State, change: Callable[[Any], Any] | None) -> Iterator[Batch]:
    """Yield batches endlessly: one pass after another, each shuffled or drawn by its own number."""
    size, augment = phase.size(stream), phase.augmentation(stream)
    while True:
        number = state.passes.get(stream, 0)
        state.passes[stream] = number + 1
        if phase.draw and stream == "retain":
            seen_N = (
                torch.ones(len(data.labels_N), device=data.device) if state.seen_losses is None else state.seen_losses.nan_to_num(nan=1.0)
            )
            batches = data.drawn(stream, size, seed, number, phase.draw.weights(seen_N), phase.draw.batches, augment)
        else:
            batches = data.batches(stream, size, seed, number, augment)
        yield from map(change, batches) if change else batches


@contextmanager
def _training(model: Module, trains: frozenset[str], batchnorm: str) -> Iterator[None]:
    """Set train mode, and `requires_grad` for the parameters in `trains` only; restore both at the end."""
    flags = {parameter: parameter.requires_grad for parameter in model.parameters()}
    with modes_kept(model):
        model.train()
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trains)
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                frozen = not any(parameter.requires_grad for parameter in module.parameters())
                if batchnorm == "eval" or (batchnorm == "eval_frozen" and frozen):
                    module.eval()
        try:
            yield
        finally:
            for parameter, flag in flags.items():
                parameter.requires_grad_(flag)


def _counted(options: RunOptions, model: Module, refs: FrozenReferences) -> AbstractContextManager[Work]:
    return refs.counted(model) if options.count_work else nullcontext(Work())


@contextmanager
def modes_kept(model: Module) -> Iterator[None]:
    """Restore the train or eval mode of every module at the end."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _seeded(seed: int, number: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generator (dropout) by seed and epoch, so that a resumed run draws the same; restore it at the end."""
    on_cpu = device.type == "cpu"  # there, torch.manual_seed mostly formats the stack, for GPUs that are not initialised
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        (torch.default_generator.manual_seed if on_cpu else torch.manual_seed)(seed * 1_000_003 + number)
        yield


def _means(losses: list[tuple[int, str, Tensor]], phase: str, epoch: int) -> dict[str, float]:
    """Mean loss by stream; read from the device once per epoch."""
    if not losses:
        return {}
    values = torch.stack([value.float() for _, _, value in losses]).tolist()
    by_stream: dict[str, list[float]] = defaultdict(list)
    for (step, stream, _), value in zip(losses, values, strict=True):
        if not math.isfinite(value):
            raise Diverged(f"phase {phase}, epoch {epoch}, step {step}: the {stream} loss is {value}")
        by_stream[stream].append(value)
    return {stream: sum(all_) / len(all_) for stream, all_ in by_stream.items()}


def _timed(evaluate: Evaluate, model: Module, seen: Module, source: Data) -> tuple[dict[str, float], float]:
    began = time.perf_counter()
    with modes_kept(model):
        model.eval()
        metrics = dict(evaluate(seen, source))
    _wait(source.device)
    return metrics, time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
