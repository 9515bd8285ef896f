"""Machine unlearning you can trust, track and repeat.

    model = lethe.unlearn(original, retain=retain, forget=forget, validation=validation, method="hybrid_4", trains=("fc",))
    score = lethe.evaluate(model, references=[retrained], original=original, retain=retain, forget=forget, test=test)
    print(score.table(), score.verdict)

Nothing slow is imported before it is used: `import lethe` does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lethe._util.errors import Diverged, UserError
    from lethe.api import Score, evaluate, run, unlearn
    from lethe.data.images import Images
    from lethe.data.sources import SourceOptions, register_data_source
    from lethe.engine.engine import Epoch
    from lethe.evaluation.context import EvaluationContext
    from lethe.evaluation.registry import register_measure
    from lethe.evaluation.uncertainty import Estimate
    from lethe.recipes.losses import CrossEntropy
    from lethe.recipes.optimizers import SGD
    from lethe.recipes.ordering import Alternate, Every, First, InTurn, Together
    from lethe.recipes.recipe import Augment, Phase, Term
    from lethe.recipes.registry import register_method
    from lethe.recipes.schedules import Constant, Cosine, OneCycle, Ramp
    from lethe.recipes.trainable import Layers, Stages
    from lethe.recipes.training import Training
    from lethe.recipes.weight_edits import Reinitialise
    from lethe.workspace.saved_runs import load

__version__ = "0.1.0"

_HOMES = {
    "_util.errors": ("UserError", "Diverged"),
    "api": ("Score", "evaluate", "run", "unlearn"),
    "data.images": ("Images",),
    "data.sources": ("SourceOptions", "register_data_source"),
    "engine.engine": ("Epoch",),
    "evaluation.context": ("EvaluationContext",),
    "evaluation.registry": ("register_measure",),
    "evaluation.uncertainty": ("Estimate",),
    "recipes.losses": ("CrossEntropy",),
    "recipes.ordering": ("Alternate", "Every", "First", "InTurn", "Together"),
    "recipes.optimizers": ("SGD",),
    "recipes.recipe": ("Augment", "Phase", "Term"),
    "recipes.registry": ("register_method",),
    "recipes.schedules": ("Constant", "Cosine", "OneCycle", "Ramp"),
    "recipes.trainable": ("Layers", "Stages"),
    "recipes.training": ("Training",),
    "recipes.weight_edits": ("Reinitialise",),
    "workspace.saved_runs": ("load",),
}
_HOME = {name: f"lethe.{module}" for module, names in _HOMES.items() for name in names}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lethe' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
