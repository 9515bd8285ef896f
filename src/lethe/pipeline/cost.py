"""The cost of a recipe as a share of retraining, before it is run. What a run then took is the measure `share_of_retrain`."""

from collections import Counter
from functools import lru_cache, partial

from torch.nn import Module

from lethe._util.errors import UserError
from lethe._util.files import read_json
from lethe.config.loader import Config
from lethe.config.source_map import REQUEST
from lethe.data import deletion_request, sources, splits
from lethe.models import architectures
from lethe.recipes.recipe import Phase, Recipe
from lethe.workspace import erased, timing
from lethe.workspace.layout import Layout
from lethe.workspace.plan import plan
from lethe.workspace.request import request, source_keys
from lethe.workspace.workspace import Prepared, reference_recipe


def work(recipe: Recipe, network: Module, sizes: dict[str, int], *, by_weights: bool = True) -> float:
    """Sum over all optimizer steps of the number of examples in it times the number of weights that train.

    An edit that takes gradients counts its examples times all weights. Forward passes without a step, such as those of a teacher, are not
    counted: seconds are.

    Args:
        recipe: phases and edits.
        network: of the architecture that is trained.
        sizes: number of examples by stream.
        by_weights: False counts examples alone, whatever trains.

    Returns:
        Examples times weights.
    """
    weights = {name: parameter.numel() for name, parameter in network.named_parameters()}
    all_weights = sum(weights.values()) if by_weights else 1
    total = 0.0
    for edit in (step for step in recipe if hasattr(step, "examples")):
        total += edit.examples(sizes) * all_weights
    for phase in (step for step in recipe if isinstance(step, Phase)):
        lengths = {letter: batches(sizes[stream], phase.size(stream)) for letter, stream in phase.streams.items()}
        for epoch in range(phase.epochs):
            trains = sum(weights[name] for name in phase.trains(network, epoch / phase.epochs)) if by_weights else 1
            taken = Counter(letter for letters in phase.batch_order(lengths, epoch) for letter in letters)
            for letter, stream in phase.streams.items():
                passes, rest = divmod(taken[letter], lengths[letter])
                changed = phase.inputs(stream)
                total += trains * (changed.copies if changed else 1) * (passes * sizes[stream] + rest * phase.size(stream))
    return float(total)


def batches(size: int, batch_size: int) -> int:
    """Number of batches in a pass, as `Data.batches` cuts it: a last batch of one example joins the batch before it.

    Args:
        size: examples of the split.
        batch_size: examples per batch.

    Returns:
        Their number; 0 for an empty split.
    """
    number = -(-size // batch_size)
    return number - (number > 1 and size - (number - 1) * batch_size == 1)


@lru_cache(maxsize=1)
def _network(architecture: str, classes: int) -> Module:
    """Of which only the sizes of the weights count."""
    return architectures.build(architecture, classes, 0, drawn=False)


def planned_share(config: Config, *, by_weights: bool = True) -> float:
    """The work of the configured method relative to training the retrained model. Reads no image where the source has a listing.

    Args:
        config: the configuration.
        by_weights: False: relative numbers of examples alone.

    Raises:
        UserError: the deletion request names no image, or all of them.
    """
    retain, forget, classes = split_sizes(config)
    return _share(config, _network(config.model.architecture, classes), retain, forget, by_weights=by_weights)


def share_of(prepared: Prepared, config: Config | None = None) -> float:
    """The same for images that have been read.

    Args:
        prepared: the images and splits.
        config: of the method; None: that of `prepared`.
    """
    sizes = (len(prepared.splits[split]) for split in ("retain", "forget"))
    return _share(config or prepared.config, _network(prepared.config.model.architecture, len(prepared.images.classes)), *sizes)


def _share(config: Config, network: Module, retain: int, forget: int, *, by_weights: bool = True) -> float:
    sizes = {"retain": retain, "forget": forget, "train": retain + forget}
    recipes = {planned.run.method: planned.recipe for planned in plan(config)}  # equal for all seeds
    own, retraining = [*recipes.values()], reference_recipe(config, "retrained", retain + forget)
    measured = partial(work, network=network, sizes=sizes, by_weights=by_weights)
    return sum(map(measured, own)) / measured(retraining)


def retraining_work(config: Config, images: tuple[int, int, int] | None = None) -> float:
    """The floating-point operations of retraining that the work of a run is divided by: those that were counted while the retrained model
    that exists was trained, else those of its recipe.

    Args:
        config: the configuration.
        images: as of `retraining_operations`.

    Raises:
        UserError: as `retraining_operations`.
    """
    counted = timing.retraining(Layout(config.workspace)).get("flops")
    return float(counted) if counted else retraining_operations(config, images)


def retraining_operations(config: Config, images: tuple[int, int, int] | None = None) -> float:
    """The floating-point operations that retraining takes by its recipe, for where a given model stands for it and none were counted: those
    of a step on one image (`engine.work`), times the examples of all steps.

    Args:
        config: the configuration.
        images: numbers of retain images, forget images and classes; None: as `split_sizes` finds them.

    Raises:
        UserError: the deletion request names no image, or all of them; or the network's code can't be imported.
    """
    retain, forget, classes = images or split_sizes(config)
    recipe, sizes = reference_recipe(config, "retrained", retain + forget), {"retain": retain, "forget": forget, "train": retain + forget}
    one = _operations_of_a_step(config.model.architecture, classes, config.data.image_size)
    return one * work(recipe, Module(), sizes, by_weights=False)  # of examples alone, for which no network is needed


@lru_cache(maxsize=1)
def _operations_of_a_step(architecture: str, classes: int, image_size: int) -> int:
    """On one image. The number is kept, as the leaderboard's tables are written after every row; the network is not, next to one in use."""
    import torch

    from lethe.engine.work import counted

    network = architectures.build(architecture, classes, 0, drawn=False)
    with torch.enable_grad(), counted(network) as one:
        network(torch.zeros(1, 3, image_size, image_size))  # in eval mode, so that one image suffices
    return one.flops


def split_sizes(config: Config) -> tuple[int, int, int]:
    """Return the numbers of retain images, forget images and classes; from the listing of the images where that suffices.

    The listing still has images that were erased. After an erasure the splits' own numbers count; for a request that they are not of, the
    number of train images that are left does."""
    asked, layout = config.data, Layout(config.workspace)
    per_class = sources.class_counts(asked.source, **source_keys(config), cache=layout.data)
    classes, train = len(per_class), sum(per_class.values())
    if erased.read(config) and layout.about("train").exists():
        train = int(read_json(layout.about("train"))["images"])
        if REQUEST.isdisjoint(config.given) and (stored := splits.count(layout.splits, "forget")):
            return train - stored, stored, classes
    forget = asked.forget
    if forget.fraction is not None:
        wanted = round(forget.fraction * train)
    elif forget.count is not None:
        wanted = forget.count
    elif forget.classes is not None:
        wanted = round(sum(per_class.get(name, train / classes) for name in forget.classes))
    else:
        wanted = deletion_request.count_ids(request(config))
    if not 0 < wanted < train:
        by = f".ids ({config.path(forget.ids)})" if forget.ids is not None else ""
        raise UserError(f"data.forget{by} asks for {wanted} of {train} train images; it takes 1 to {train - 1}")
    return train - wanted, wanted, classes
