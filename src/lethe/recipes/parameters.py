"""Parameters of methods as annotated types: type, range and meaning in one place.

A method annotates its keyword arguments with them, so that the same word has the same range and meaning in every method. The
configuration keys `methods.<name>.<argument>`, their checks, --help and docs/keys.md are derived from these annotations.
"""

from typing import Annotated, Literal

from pydantic import Field

from lethe.recipes.schedules import Shape

Epochs = Annotated[int, Field(ge=0, description="epochs of the main phase")]
FinalEpochs = Annotated[int, Field(ge=0, description="epochs on retain at the end")]
RepairEvery = Annotated[int, Field(ge=0, description="epochs between repair passes over retain; 0: no repair passes")]
Scale = Annotated[float, Field(le=0, description="weight of the forget loss; negative: gradient ascent")]
Peak = Annotated[float, Field(le=0, description="final value of the scale's ramp, which starts at 0")]
RampShape = Annotated[Shape, Field(description="shape of the scale's ramp")]
Power = Annotated[float, Field(gt=0, description="exponent of a power ramp, or rate of an exponential ramp")]
Unfreeze = Annotated[tuple[str, ...], Field(min_length=1, description="modules that also train after unfreeze_at")]
UnfreezeAt = Annotated[float, Field(ge=0, le=1, description="fraction of the epochs after which the modules in unfreeze start to train")]
LearningRate = Annotated[float, Field(gt=0, description="learning rate")]
LearningRateSchedule = Annotated[
    Literal["constant", "cosine"], Field(description="schedule of the learning rate over the epochs of the first phase")
]
Momentum = Annotated[float, Field(ge=0, lt=1, description="momentum of SGD")]
WeightDecay = Annotated[float, Field(ge=0, description="weight decay of SGD")]
BatchSize = Annotated[int, Field(ge=1, description="examples per batch")]
Trains = Annotated[
    tuple[str, ...],
    Field(min_length=1, description="names of modules that train, or: all, head, last_block, early (resolved per architecture)"),
]
BatchNormMode = Annotated[
    Literal["train", "eval_frozen", "eval"],
    Field(description="BatchNorm statistics: train updates all, eval_frozen only those of layers that train, eval none"),
]
Keep = Annotated[
    Literal["last", "best"],
    Field(description="which weights to keep: those of the last epoch, or of the final phase's epoch with the best validation accuracy"),
]
Share = Annotated[float, Field(gt=0, description="factor by which the notebook's numbers of epochs are multiplied")]
