"""The report's notebook as it ran: ten runs, each from the result of the one before."""

from dataclasses import replace
from typing import Any

from lethe.recipes import paper_methods as paper
from lethe.recipes.parameters import Share
from lethe.recipes.recipe import Recipe
from lethe.recipes.registry import register_method
from lethe.recipes.training import Training


@register_method(source="the report's notebook", chain=True)
def as_run(training: Training, *, share: Share) -> dict[str, Recipe]:
    """The notebook's chain: ten runs, each from the result before it, with the faults that it had.

    Only the last block and the head train from Model 2 on, Model 3 ascends in BatchNorm's eval mode,
    Hybrid-4 starts with layer1 and layer2 unfrozen.

    Its numbers are the notebook's, so they are here and not in params.yaml; `share` multiplies the epochs (1: the notebook's).

    Returns:
        Name of the run -> its recipe, in the order in which they run.
    """

    def part(epochs: int) -> int:
        return max(1, round(epochs * share))

    head = training
    whole = replace(training, trains=("all",))
    cosine: dict[str, Any] = {"lr_schedule": "cosine"}
    unfrozen = replace(head, trains=("layer1", "layer2", *head.trains))  # the second optimizer was built after unfreezing
    quadratic: dict[str, Any] = {"shape": "power", "power": 2.0}
    hybrid: dict[str, Any] = {"epochs": part(50), "peak": -1.0, **quadratic, "repair_every": 10, "final_epochs": part(10)}
    half = replace(head, **cosine).first("retain", part(50), paper.RETAIN)
    return {
        "model_1": paper.model_1(replace(whole, **cosine), epochs=part(100)),
        "model_2": paper.model_2(replace(head, **cosine), epochs=part(100)),
        "model_3": (
            replace(head, **cosine).first("retain", part(60), paper.RETAIN),
            head.then("reversal", 1, paper.forget_at(-1.0), batchnorm="eval"),
        ),
        "model_4": (half, head.first("in_turn", part(50), paper.RETAIN + paper.forget_at(-0.3))),
        "model_5": paper.model_5(head, epochs=part(100), scale=-0.4),
        "model_6": paper.model_6(head, epochs=part(100), scale=-0.6, final_epochs=part(15))
        + paper.model_6(head, epochs=part(100), scale=-0.5, final_epochs=part(5)),
        "hybrid_1": paper.hybrid_1(head, epochs=part(50), peak=-0.6, shape="linear", power=1.0),
        "hybrid_2": paper.hybrid_2(head, epochs=part(50), peak=-0.8, **quadratic, final_epochs=part(10)),
        "hybrid_3": paper.hybrid_3(head, **hybrid),
        "hybrid_4": paper.hybrid_3(unfrozen, **hybrid),
    }
