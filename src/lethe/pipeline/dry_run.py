"""A dry run: what is trained first, and the phases of the planned recipes in numbers. Reads no data, writes nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from lethe._util.errors import UserError
from lethe._util.redact import clean
from lethe.config.loader import STAGE, Config
from lethe.data.device_data import Data
from lethe.engine import engine
from lethe.engine.options import RunOptions
from lethe.evaluation import seed_aggregation
from lethe.models import architectures, device
from lethe.pipeline import references
from lethe.pipeline.cost import split_sizes
from lethe.pipeline.unlearn import check_batches
from lethe.recipes.ordering import First, shorten
from lethe.recipes.recipe import Phase, Recipe
from lethe.workspace.layout import Layout
from lethe.workspace.plan import each_method, plan
from lethe.workspace.workspace import reference_recipe


def explain(config: Config, measure: bool = False) -> str:
    """Describe what a run would do: which references it finds, takes from a given file or trains first, and per phase its epochs, batch
    order, steps, learning rate, scale, trainable layers, BatchNorm mode.

    Args:
        config: the configuration.
        measure: also take three steps of each phase on random images, and estimate the time.

    Returns:
        The description, in several lines without a final newline.

    Raises:
        UserError: the deletion request names no image, or all of them; a batch is larger than the retain split.
    """
    retain, forget, classes = split_sizes(config)
    chosen = device.resolve(config.run)
    network = architectures.build(config.model.architecture, classes, 0, drawn=measure)
    weights = sum(parameter.numel() for parameter in network.parameters())
    lines = [f"{config.model.architecture}, {weights:,} weights; retain {retain:,}, forget {forget:,} images; {chosen}"]
    lines.append("R: an optimizer step on a batch of retain; F: one on a batch of forget, its gradient times the scale")
    if config.data.forget.ids is not None or config.data.forget.where is not None:
        lines.append("ids in the list are counted, but not looked up among the images")
    took = partial(_seconds, network=chosen.place(network), config=config, chosen=chosen, retain=retain, forget=forget) if measure else None
    lines += [_reference(config, kind, retain, forget, took) for kind in references.needed(config)]
    runs = plan(config)
    recipes = {planned.run.method: planned.recipe for planned in runs}
    if runs[0].run.seed is not None:
        name, numbers = config.method, seed_aggregation.seed_range([planned.seed for planned in runs])
        each = f"models/{name}.seed<k>.safetensors, epochs/{name}.seed<k>.csv"
        lines.append(f"{len(runs)} runs from one original, by seeds {numbers}: {each}; finished seeds are kept")
    if config.run.originals > 1:
        lines.append(f"the same from {config.run.originals - 1} further originals, which are trained first: originals/<seed>/")
    for name, recipe in recipes.items():
        check_batches(config, recipe, retain)
        lines += ["", f"{name}: {len(recipe)} phases"]
        for step in recipe:
            lines += _phase(step, network, retain, forget) if isinstance(step, Phase) else [f"  edit {step!r}"]
        if took:
            each = " per seed" if runs[0].run.seed is not None else ""
            lines.append(f"  about {took(recipe):,.0f} s of steps on this machine{each}, without evaluation")
    return "\n".join(lines)


def print_explanation(config: Config, measure: bool = False, names: Sequence[str] = ()) -> None:
    """Print what `explain` returns, on stdout.

    Args:
        config: the configuration.
        measure: also take three steps of each phase on random images, and estimate the time.
        names: of several methods, as `plan.each_method` takes them; none: the configured one.

    Raises:
        UserError: as `explain`.
    """
    print("\n\n".join(explain(each, measure) for each in (each_method(config, names) if names else [config])))


def _reference(config: Config, kind: str, retain: int, forget: int, took: Callable[[Recipe], float] | None) -> str:
    """What happens to the original or the retrained model before a method runs, in one line; also that its file would be refused."""
    path = Layout(config.workspace).weights(kind)
    try:
        recipe = reference_recipe(config, kind, retain + forget)
        if references.is_there(config, kind, recipe):
            return f"{kind}: {path}, which is there"
    except UserError as error:
        return f"{kind}: the run would be refused: {error}"
    if given := getattr(config, STAGE[kind]).checkpoint:
        return f"{kind}: taken from {clean(given)} first, into {path}"
    phases = [step for step in recipe if isinstance(step, Phase)]
    steps = sum(len(phase.batch_order(_lengths(phase, retain, forget), epoch)) for phase in phases for epoch in range(phase.epochs))
    time = f", about {took(recipe):,.0f} s of steps on this machine" if took else ""
    epochs = sum(phase.epochs for phase in phases)
    start = f" from {clean(config.pretrain.init)}" if config.pretrain.init else ""
    return f"{kind}: trained first{start} on {references.DATA[kind]}, {epochs} epochs, {steps:,} optimizer steps{time}, into {path}"


def _phase(phase: Phase, network: torch.nn.Module, retain: int, forget: int) -> list[str]:
    lengths = _lengths(phase, retain, forget)
    orders = [phase.batch_order(lengths, epoch) for epoch in range(phase.epochs)]
    steps = sum(map(len, orders))
    lines = [f"  {phase.name}: {phase.epochs} epochs, {steps:,} optimizer steps, batch {phase.batch_size}"]
    if not orders:
        return lines
    lines.append(f"    batch order   {shorten(iter(orders[0]))}")
    longer = [epoch for epoch, order in enumerate(orders) if len(order) > len(orders[0])]
    if longer:
        lines.append(f"    every {longer[0] + 1}th       {shorten(iter(orders[longer[0]]))}")
    moments = sorted({0.0, 0.5, (phase.epochs - 1) / phase.epochs})
    if phase.lr_steps == "batch":
        moments = sorted({*moments, 0.3})
    lines.append(f"    learning rate {_over(phase.lr, moments)}")
    if phase.scale(0.0) is not None:
        lines.append(f"    scale         {_over(lambda t: phase.scale(t) or 0.0, moments)}")
    before: frozenset[str] = frozenset()
    for epoch in range(phase.epochs):
        trains = phase.trains(network, epoch / phase.epochs)
        if trains != before:
            moving = sum(p.numel() for name, p in network.named_parameters() if name in trains)
            blocks = ", ".join(dict.fromkeys(name.split(".")[0] for name, _ in network.named_parameters() if name in trains))
            lines.append(f"    trains        {blocks}: {moving:,} weights" + (f", from epoch {epoch} on" if epoch else ""))
            before = trains
    lines.append(f"    BatchNorm     {phase.batchnorm}; optimizer {phase.optimizer or 'continues'}; keeps the {phase.keep} epoch")
    return lines


def _over(schedule: Callable[[float], float], moments: list[float]) -> str:
    values = [f"{schedule(t):.4g}" for t in moments]
    return (
        values[0] + " throughout" if len(set(values)) == 1 else ", ".join(f"{v} at t={t:.2g}" for v, t in zip(values, moments, strict=True))
    )


def _lengths(phase: Phase, retain: int, forget: int) -> dict[str, int]:
    sizes = {"retain": retain, "forget": forget, "train": retain + forget}
    splits_: dict[str, torch.Tensor] = {stream: torch.empty(sizes[stream], device="meta") for stream in phase.streams.values()}
    empty = torch.empty(0)
    data = Data(empty, empty, splits_, empty, empty)
    return {letter: data.length(stream, phase.size(stream)) for letter, stream in phase.streams.items()}


def _seconds(recipe: Recipe, *, network: torch.nn.Module, config: Config, chosen: device.Compute, retain: int, forget: int) -> float:
    """Estimate the seconds of all steps: the engine takes three of each phase on random images, after three to warm up."""
    phases = [step for step in recipe if isinstance(step, Phase) and step.epochs]
    probe = tuple(replace(phase, epochs=2, order=First(3, phase.order), keep="last") for phase in phases)
    size, most = config.data.image_size, min(max(phase.batch_size for phase in phases), retain + forget)
    images = torch.randint(0, 256, (3 * most, 3, size, size), dtype=torch.uint8, device=chosen.device)
    index = torch.arange(len(images), device=chosen.device)
    mean, std = (torch.tensor(v, device=chosen.device).view(1, -1, 1, 1) for v in (config.data.mean, config.data.std))
    data = Data(images, torch.zeros_like(index), {"retain": index, "forget": index, "train": index}, mean, std, chosen.channels_last)
    took = [
        epoch.seconds / epoch.steps for epoch in engine.run(probe, network, data, RunOptions(autocast=chosen.autocast)) if epoch.epoch == 1
    ]
    steps = [sum(len(phase.batch_order(_lengths(phase, retain, forget), e)) for e in range(phase.epochs)) for phase in phases]
    return sum(seconds * number for seconds, number in zip(took, steps, strict=True))
