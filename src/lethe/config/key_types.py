"""Types of the values of configuration keys: what is written as a list, and bounds that several keys share."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from lethe.config.describe import split
from lethe.recipes.parameters import AUGMENTATION_EXAMPLES, AUGMENTATIONS, MOST_EPOCHS


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(value: Any) -> Any:
    """`a,b` is a list, and a single value a list of one."""
    value = split(value)
    return (value,) if _is_number(value) else value


def _conditions(value: Any) -> Any:
    """`a=1,b=2` is a list; a comma belongs to a value unless another condition follows it."""
    return tuple(part.strip() for part in re.split(r",(?=[^,=]+=)", value) if part.strip()) if isinstance(value, str) else _listed(value)


def _plain(value: Any) -> Any:
    return str(value) if _is_number(value) else value


Text = Annotated[str, BeforeValidator(_plain)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_listed), Field(min_length=1)]
Conditions = Annotated[tuple[Text, ...], BeforeValidator(_conditions), Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
Three = Annotated[tuple[float, float, float], BeforeValidator(_listed)]
ThreePositive = Annotated[tuple[Positive, Positive, Positive], BeforeValidator(_listed)]
Epochs = Annotated[int, Field(ge=0, le=MOST_EPOCHS)]
MOST_MODELS = 10_000
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]  # what NumPy, torch, scikit-learn and Optuna all take, and the seeds after it
Listed = Annotated[tuple[Any, ...], BeforeValidator(_listed)]
Share = Annotated[float, Field(ge=0, le=1)]
_AugmentationName = Annotated[str, Field(pattern=AUGMENTATIONS, examples=list(AUGMENTATION_EXAMPLES))]
Augmentation = Annotated[tuple[_AugmentationName, ...], BeforeValidator(split)]
