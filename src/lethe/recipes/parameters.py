"""Parameters of methods as annotated types: type, range and meaning in one place.

A method annotates its keyword arguments with them, so that the same word has the same range and meaning in every method. The
configuration keys `methods.<name>.<argument>`, their checks, --help and docs/keys.md are derived from these annotations.
"""

from typing import Annotated, Literal

from lethe.recipes.annotation import Field
from lethe.recipes.schedules import Shape

MOST_EPOCHS = 100_000  # plans list every epoch, and a number with zeros too many would fill the memory
Epochs = Annotated[int, Field(ge=0, le=MOST_EPOCHS, description="epochs of the main phase")]
FinalEpochs = Annotated[int, Field(ge=0, le=MOST_EPOCHS, description="epochs on retain at the end")]
RepairEvery = Annotated[int, Field(ge=0, description="epochs between repair passes over retain; 0: no repair passes")]
RetainEpochs = Annotated[
    float,
    Field(ge=0, le=MOST_EPOCHS, description="passes over retain of the whole run, which has one learning-rate schedule; may be a fraction"),
]
CropShare = Annotated[
    float,
    Field(ge=0, le=1, description="share of the run in which images are cropped; then only the flip of augment is left, for lethe nothing"),
]
PlainFrom = Annotated[float, Field(ge=0, le=1, description="share of the run from which images are not augmented")]
PullFrom = Annotated[float, Field(ge=0, lt=1, description="share of the run from which the losses of forget are raised")]
PullWeight = Annotated[
    float, Field(ge=0, description="weight of the forget loss at the end of the run; it grows from 0 with the square root")
]
RenewEvery = Annotated[float, Field(gt=0, le=1, description="share of the run after which the targets of forget are computed again")]
ForgetBatchSize = Annotated[int, Field(ge=1, description="forget examples in each step")]
Cap = Annotated[float, Field(gt=0, description="highest target of a forget image's loss, in nats")]
PullOn = Annotated[
    Literal["loss", "log_odds", "scaled_log_odds"],
    Field(
        description="what is pulled: losses, or log odds, whose gradient does not vanish where the model is certain of nearly everything; "
        "scaled ones are divided by their standard deviation over unseen images"
    ),
]
Fade = Annotated[
    float,
    Field(
        ge=0,
        description="mean distance of forget from its targets, in units of what is pulled, below which the pull weakens in proportion; "
        "0: it never does",
    ),
]
Focus = Annotated[
    float,
    Field(ge=0, description="after the augmented part, retain images are drawn with weight focus + min(last loss, 3); 0: shuffled passes"),
]
AscentLimit = Annotated[
    float, Field(ge=0, description="loss in nats up to which forget images are raised (a hinge), each for itself; 0: there is no limit")
]
RetainShare = Annotated[float, Field(gt=0, lt=1, description="weight of the retain loss; forget's is that of the rest, with a minus sign")]
SaliencyShare = Annotated[float, Field(gt=0, le=1, description="share of the weights that move: those with the largest gradient on forget")]
ForgetEvery = Annotated[int, Field(ge=1, description="steps on retain between two steps on forget")]
SalienceThreshold = Annotated[
    float, Field(ge=0, description="weights move on forget whose squared gradient there is at least this multiple of that on retain")
]
ForgetClip = Annotated[float, Field(gt=0, description="highest norm of the gradient of a step on forget")]
JointClip = Annotated[float, Field(gt=0, description="highest norm of the combined gradient")]
TargetOf = Annotated[
    Literal["batch", "class"],
    Field(description="whose mean answer to unseen images is the target: that of all classes of the batch, or of the image's class"),
]
ForgetWeight = Annotated[float, Field(gt=0, lt=1, description="weight of the loss on forget; retain's is the rest")]
ContrastWeight = Annotated[float, Field(ge=0, description="weight of the contrastive loss between two views of each retain image")]
ContrastTemperature = Annotated[float, Field(gt=0, description="temperature of the contrastive loss")]
Radius = Annotated[float, Field(gt=0, description="size of perturbations of forget images: root mean square over pixels in [0, 1]")]
Draws = Annotated[int, Field(ge=1, le=10_000, description="perturbed copies of each forget image")]
AttackRadius = Annotated[
    float, Field(gt=0, description="L2 radius of the first attack on a forget image, pixels in [0, 1]; doubled until it succeeds")
]
AttackSteps = Annotated[int, Field(ge=1, le=10_000, description="gradient steps of the attack in each radius")]
Balance = Annotated[float, Field(ge=0, description="exponent by which rare classes of the request are weighted; 0: not")]
SelectionThreshold = Annotated[
    float, Field(gt=0, description="weights shrink whose squared gradient on forget is more than this multiple of that on all images")
]
DampeningStrength = Annotated[float, Field(gt=0, description="a weight that shrinks keeps this times the inverse of that ratio")]
TaskScale = Annotated[float, Field(gt=0, description="multiple of what fine-tuning on forget changed that is subtracted from the original")]
AscentRate = Annotated[float, Field(ge=0, description="learning rate of the one step of gradient ascent on forget")]
ResetShare = Annotated[float, Field(ge=0, le=1, description="share of the weights that are randomly initialised")]
ReinitialisedShare = Annotated[float, Field(gt=0, le=1, description="share of each convolution's weights that is randomly initialised")]
SlowFactor = Annotated[float, Field(ge=0, le=1, description="factor of the gradients of the other weights of convolutions")]
UniformEpochs = Annotated[int, Field(ge=0, le=MOST_EPOCHS, description="passes over forget at the start, towards uniform answers")]
UniformRate = Annotated[float, Field(gt=0, description="learning rate of these passes")]
SensitivityRise = Annotated[
    float, Field(gt=0, description="rise of the other classes' sensitivity above its minimum that ends the run, as a share of it")
]
UnseenEpochs = Annotated[
    int,
    Field(
        ge=0, le=MOST_EPOCHS, description="epochs at the start, of as many unseen images as forget has, on the original's answers to them"
    ),
]
L1Weight = Annotated[float, Field(ge=0, description="weight of the sum of absolute weights at the start; it falls linearly to 0")]
ForgetEpochs = Annotated[
    int, Field(ge=0, le=MOST_EPOCHS, description="first epochs in which a pass over forget precedes the pass over retain")
]
EndAt = Annotated[
    Literal["last", "unseen"],
    Field(description="last epoch; or (unseen) the one whose error on forget is nearest to the last one's on unseen images of its classes"),
]
Temperature = Annotated[float, Field(gt=0, description="temperature of the distillation from the original")]
CrossEntropyWeight = Annotated[float, Field(ge=0, description="weight of the cross-entropy on retain")]
DistillationWeight = Annotated[float, Field(ge=0, description="weight of the distillation from the original on retain")]
Scale = Annotated[float, Field(le=0, description="weight of the forget loss; negative: gradient ascent")]
ForgetGain = Annotated[float, Field(gt=0, lt=1, description="rise of forget's loss per step and tensor, as a share of the learning rate")]
Tasks = Annotated[int, Field(ge=2, description="number of models that are fine-tuned on forget and merged")]
RateSpread = Annotated[
    float, Field(ge=1, description="the models' learning rates go from lr / rate_spread to lr x rate_spread, evenly in log")
]
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
OptimizerName = Annotated[
    Literal["sgd", "adam", "adamw"], Field(description="optimizer; momentum is SGD's, weight_decay each one's own kind of decay")
]
WarmUpShare = Annotated[
    float,
    Field(
        ge=0, lt=1, description="share of the first phase in which the learning rate rises from 0, and then follows lr_schedule per batch"
    ),
]
AUGMENTATIONS = r"^(flip|crop[1-9]\d{0,2}|resized_crop(0?\.\d*[1-9]\d*)?)$"  # names of them
AUGMENTATION_EXAMPLES = ("flip", "crop4", "resized_crop0.5")
_Augmentation = Annotated[str, Field(pattern=AUGMENTATIONS, examples=AUGMENTATION_EXAMPLES)]
Augmentation = Annotated[
    tuple[_Augmentation, ...],
    Field(
        description="random augmentation: flip; crop4 (zero padding of 4 pixels) or resized_crop0.5 (a part of at least half of the area, "
        "enlarged; without a number 0.08); empty: none"
    ),
]
ForgetOptimizer = Annotated[
    Literal["none", "sgd", "adam", "adamw"],
    Field(description="optimizer of its own, with its own state, of the steps on forget alone (DualOptim); none: the same as on retain"),
]
ForgetLearningRate = Annotated[float, Field(gt=0, description="learning rate of forget_optimizer")]
_Module = Annotated[str, Field(pattern=r"^[\w.]+$")]
NegatedLayers = Annotated[
    tuple[_Module, ...],
    Field(description="modules whose weights are multiplied by -1 before the first epoch; first: the first convolution; empty: none"),
]
ReinitialisedLayers = Annotated[
    tuple[_Module, ...],
    Field(description="modules that are randomly initialised before the first epoch, or: first, head, last_block, early; empty: none"),
]
ReinitShare = Annotated[
    float,
    Field(gt=0, le=1, description="how far the weights of reinit's modules go to randomly initialised ones: 1 is all of the way"),
]
StopRule = Annotated[
    Literal["none", "unseen"],
    Field(description="when a phase on forget ends early; unseen: when forget's mean loss reaches that of unseen images of its classes"),
]
EarlierCheckpoint = Annotated[
    str,
    Field(
        pattern=r"^(.+@[0-9a-f]{64})?$",
        examples=("earlier.safetensors@<its SHA-256>",),
        description="earlier checkpoint of the original's training to start from, as FILE@SHA256; empty: the original",
    ),
]
Noise = Annotated[
    float,
    Field(ge=0, description="Gaussian noise added before the first epoch, in standard deviations of each weight tensor; 0: none"),
]
Share = Annotated[float, Field(gt=0, description="factor by which the notebook's numbers of epochs are multiplied")]
