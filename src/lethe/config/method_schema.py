"""The section `methods.<name>`: exactly the method function's arguments."""

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

from pydantic import Field, create_model

from lethe.config.schema import Epochs, Names, Section, Share
from lethe.recipes.paper_methods import METHODS, Training, as_run
from lethe.recipes.schedules import Shape

BASES = (*METHODS, "as_run")  # methods that a section of `methods` can be of, or `like`


class Arguments(Section):
    """The arguments of all methods: the same word means the same in every method that has it."""

    epochs: Epochs = Field(description="of the main phase")
    final_epochs: Epochs = Field(description="retain epochs at the end")
    repair_every: int = Field(ge=0, description="a pass of retain behind every so many epochs; 0: never")
    scale: float = Field(le=0, description="weight of the forget loss; negative climbs (gradient reversal)")
    peak: float = Field(le=0, description="where the scale's ramp goes, from 0")
    shape: Shape = Field(description="of the scale's ramp")
    power: float = Field(gt=0, description="exponent of shape power, rate of shape exponential")
    unfreeze: Names = Field(description="blocks that train too, later")
    unfreeze_at: Share = Field(description="from which share of the epochs on they do")
    lr: float = Field(gt=0, description="learning rate")
    lr_schedule: Literal["constant", "cosine"] = Field(description="of the learning rate over the epochs of the first phase")
    momentum: float = Field(ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(ge=0, description="of SGD")
    batch_size: int = Field(ge=1, description="images a step")
    trains: Names = Field(description="modules that train, or: all, head, last_block, early (resolved per architecture)")
    batchnorm: Literal["train", "eval_frozen", "eval"] = Field(description="eval_frozen: frozen layers keep their statistics")
    keep: Literal["last", "best"] = Field(description="best: end on the final phase's epoch with the highest validation accuracy")
    share: float = Field(gt=0, description="multiplies the notebook's epochs")


class MethodSection(Section):
    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self).__name__, self.model_dump())  # its class is made while the program runs


def _again(name: str, said: Mapping[str, Any]) -> Section:
    return method_section(name).model_validate(said)


@cache
def method_section(name: str) -> type[Section]:
    """The section `methods.<name>`: exactly the method function's arguments."""
    function = as_run if name == "as_run" else METHODS[name]
    own = [p for p in inspect.signature(function).parameters if p != "training"]
    words = [*own, *Training.__dataclass_fields__]
    fields: dict[str, Any] = {word: (Arguments.model_fields[word].annotation, Arguments.model_fields[word]) for word in words}
    return create_model(name, __base__=MethodSection, **fields)
