"""The cost of a recipe as a share of retraining, before it is run. What a run then took is the measure `share_of_retrain`."""

from collections import Counter
from functools import lru_cache

from torch.nn import Module

from lethe.config.loader import Config
from lethe.models import architectures
from lethe.pipeline.dry_run import split_sizes
from lethe.recipes.recipe import Phase, Recipe
from lethe.workspace.plan import plan


def work(recipe: Recipe, network: Module, sizes: dict[str, int]) -> float:
    """Sum over all optimizer steps of the number of examples in it times the number of weights that train.

    An edit that takes gradients counts its examples times all weights. Forward passes without a step, such as those of a teacher, are not
    counted: seconds are.

    Args:
        recipe: phases and edits.
        network: of the architecture that is trained.
        sizes: number of examples by stream.

    Returns:
        Examples times weights.
    """
    weights = {name: parameter.numel() for name, parameter in network.named_parameters()}
    total = 0.0
    for edit in (step for step in recipe if hasattr(step, "examples")):
        total += edit.examples(sizes) * sum(weights.values())
    for phase in (step for step in recipe if isinstance(step, Phase)):
        lengths = {letter: batches(sizes[stream], phase.size(stream)) for letter, stream in phase.streams.items()}
        for epoch in range(phase.epochs):
            trains = sum(weights[name] for name in phase.trains(network, epoch / phase.epochs))
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


def planned_share(config: Config) -> float:
    """The work of the configured method relative to training the retrained model. Reads no image where the source has a listing.

    Args:
        config: the configuration.

    Raises:
        UserError: the deletion request names no image, or all of them.
    """
    retain, forget, classes = split_sizes(config)
    network = _network(config.model.architecture, classes)
    sizes = {"retain": retain, "forget": forget, "train": retain + forget}
    recipes = {planned.run.method: planned.recipe for planned in plan(config)}  # equal for all seeds
    own = sum(work(recipe, network, sizes) for recipe in recipes.values())
    return own / work(config.reference_recipe("retrained", retain + forget), network, sizes)
