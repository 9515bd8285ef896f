"""The configuration keys: type, range and meaning of each.

The parser, --help, docs/keys.md and error messages are derived from these annotations. The keys of methods are in method_schema.
"""

from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator
from pydantic.fields import FieldInfo

from lethe.config.key_types import MOST_MODELS, Augmentation, Conditions, Epochs, Listed, Names, Seed, Text, Three, ThreePositive
from lethe.config.section import Section


class Forget(Section):
    """Which train images are forgotten: exactly one way to name them."""

    fraction: float | None = Field(gt=0, lt=1, description="forget this fraction of the train images, drawn at random with data.seed")
    count: int | None = Field(ge=1, description="forget this number of train images, drawn at random with data.seed")
    classes: Names | None = Field(description="forget all train images of these classes")
    ids: Path | None = Field(description="forget the images in this file: a CSV with a column id, or a text file with one id per line")
    where: Conditions | None = Field(
        default=None,
        description="forget the images that have this value in data.metadata: column=value; of several (the key may be repeated) one "
        "value of each column is enough",
    )
    column: str | None = Field(
        default=None,
        description="column of data.forget.ids or data.metadata that names the images; null: id, else one of paths or of row numbers",
    )
    copies: Literal["report", "include", "include_near"] = Field(
        default="report",
        description="copies of forgotten images among the train images: report counts and names them, include forgets exact ones too, "
        "include_near also those whose perceptual hash differs in 6 of 64 bits or fewer",
    )


class HeldOut(Section):
    """How many images are held out where the source has no test images."""

    fraction: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="share of each class that is held out, drawn with data.seed (half of it is validation); null: the data say which are",
    )


class DataSection(Section):
    """The images, how they are read and divided."""

    source: Text = Field(
        description="data source: cifar10, image_folder, csv, npz, idx, huggingface, digits, a registered one, or package.module:function"
    )
    root: Path | None = Field(
        description="image_folder: contains train/<class>/* and test/<class>/*; csv, npz: the file; idx: folder of the four files; "
        "huggingface: folder of a saved dataset; cifar10: folder of the archive"
    )
    image_size: int = Field(ge=8, le=1024, description="height and width of every image in pixels")
    seed: Seed = Field(description="seed of the random split into retain, forget, validation and test")
    limit: int | None = Field(ge=1, description="maximum number of train images per class; null: all")
    metadata: Path | None = Field(
        default=None,
        description="CSV with a column id and others (user, camera, ...), for data.forget.where; null: metadata.csv in data.root, if any",
    )
    held_out: HeldOut = HeldOut()
    resize: Literal["squash", "crop", "pad"] = Field(
        default="squash",
        description="how images of other sizes are made to fit: squash stretches, crop keeps the middle, pad adds black",
    )
    skip_unreadable: bool = Field(default=False, description="whether files that can't be read as images are left out; otherwise an error")
    mean: Three = Field(description="mean of each channel, for normalisation; pixels are scaled to [0, 1]")
    std: ThreePositive = Field(description="standard deviation of each channel, for normalisation; pixels are scaled to [0, 1]")
    forget: Forget


class ModelSection(Section):
    """The network."""

    architecture: str = Field(
        description="network: resnet18, resnet18_cifar, convnet, fastnet, any of torchvision's classifiers, timm:<name>, or "
        "package.module:function"
    )


class Pretrain(Section):
    """How the original is trained or where it comes from; the retrained model is trained alike."""

    checkpoint: str | None = Field(
        description="use this .pth or .safetensors file, or <URL>#sha256=<sum>, instead of training; "
        "with #key=<name>, the state dict under that key of the file"
    )
    classes: Names | None = Field(
        default=None,
        description="class names in the order of the outputs of the given checkpoints, where that is not the order of the data: they are "
        "reordered when they are taken over, and results are in the order of the data",
    )
    init: str | None = Field(
        default=None,
        description="weights that training starts from, of the original and of the retrained model: a file or URL as for checkpoint, or "
        "torchvision's by name (IMAGENET1K_V1); a head of other classes is random; null: random weights",
    )
    recipe: str | None = Field(
        default=None,
        description="package.module:function that returns the recipe of both, called with 'train' or 'retain' and with the keys of "
        "pretrain that it has as arguments; null: the two phases that the keys below describe",
    )
    epochs: Epochs = Field(description="epochs of the first phase: learning rate by lr_schedule, augmented images")
    final_epochs: Epochs = Field(description="epochs of the second phase: cosine learning rate, flip only")
    lr: float = Field(gt=0, description="highest learning rate of the first phase")
    final_lr: float = Field(gt=0, description="initial value of the cosine learning rate of the final epochs")
    lr_schedule: Literal["one_cycle", "cosine", "constant", "step"] = Field(
        default="one_cycle",
        description="learning rate of the first phase, batch by batch; step: a tenth from half of it on, then a hundredth from 3/4 on",
    )
    warmup: float = Field(
        default=0.0, ge=0, lt=1, description="share of the first phase in which the learning rate rises from 0; one_cycle has its own"
    )
    optimizer: Literal["sgd", "adam", "adamw"] = Field(default="sgd", description="optimizer of both phases")
    momentum: float = Field(ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(ge=0, description="weight decay, of the optimizer's own kind")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of the target that is spread evenly over all classes")
    class_weights: Literal["none", "balanced"] = Field(
        default="none", description="weights of the classes in the loss; balanced: inversely proportional to their images in training"
    )
    batch_size: int = Field(ge=2, description="images per batch")
    min_steps: int = Field(
        default=1200,
        ge=0,
        description="least number of optimizer steps: on few images the batch size and with it the learning rates are halved, down to 16 "
        "images, then epochs are raised, to reach it. Does not apply where one of these keys is given on the command line; 0: never",
    )
    crop: int = Field(ge=0, le=999, description="zero padding in pixels for the random crop")
    flip: bool = Field(description="whether to flip images horizontally at random")
    augment: Augmentation | None = Field(
        default=None,
        description="augmentation in place of crop and flip: flip, and crop4 or resized_crop0.5 (a part of at least half of the area, "
        "enlarged; without a number 0.08); []: none; null: as crop and flip say",
    )
    seeds: int = Field(
        ge=0,
        le=MOST_MODELS,
        description="number of originals in the reference bank, with the seeds after run.seed; models/original is not part of it",
    )


class Retrain(Section):
    """What differs for the retrained model, and how many of them the bank has."""

    checkpoint: str | None = Field(description="use this file or URL as the retrained reference instead of training")
    epochs: Epochs | None = Field(description="epochs of the retrained model; null: the same as pretrain.epochs")
    final_epochs: Epochs | None = Field(description="final epochs of the retrained model; null: the same as pretrain.final_epochs")
    seeds: int = Field(
        ge=0,
        le=MOST_MODELS,
        description="number of retrained models in the reference bank, with the seeds after run.seed; models/retrained is not part of it",
    )


class Run(Section):
    """Where, on what, how often and by how many processes a run takes place, and what MLflow gets of it."""

    workspace: Path = Field(description="folder that contains data/, models/, epochs/, logits/ and scores/")
    experiment: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="MLflow experiment of the runs; null: what MLFLOW_EXPERIMENT_NAME, MLFLOW_EXPERIMENT_ID or mlflow run name, else one a "
        "workspace, named after its folder, and Default for the checkout itself",
    )
    seed: Seed = Field(description="seed of initial weights, batch order, augmentation and dropout")
    seeds: int = Field(
        ge=1,
        le=MOST_MODELS,
        description="number of unlearning runs from the same original, with run.seed and the seeds after it; as_run allows only 1",
    )
    originals: int = Field(
        default=1,
        ge=1,
        le=MOST_MODELS,
        description="number of originals that the method unlearns from, by run.seeds runs from each: models/original and others that are "
        "trained by the seeds after run.seed; above 1, intervals over originals are given as well",
    )
    device: str = Field(
        pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="where to compute; auto: cuda if available, else mps, else cpu"
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        description="precision of training; auto: bfloat16 on a GPU that has it, else float32"
    )
    channels_last: bool = Field(description="whether images and weights are stored in channels-last memory format")
    images: Literal["auto", "device", "host"] = Field(
        description="where the images are stored; auto: on the device, unless they need more than half of a GPU's free memory"
    )
    cache: int = Field(
        ge=0,
        description="most MiB of cached activations of frozen layers (needs batchnorm eval or eval_frozen), on the CPU above 64 MiB in a "
        "temporary file of the workspace; 0: no cache",
    )
    threads: int | None = Field(ge=1, le=1024, description="number of CPU threads; null: torch's default")
    workers: int = Field(
        ge=1,
        le=1024,
        description="number of seeds, parts of a reference bank or rows of a leaderboard that run in parallel: as processes, "
        "or as tasks of the Ray cluster at RAY_ADDRESS",
    )
    gpus: float | None = Field(ge=0, description="GPU fraction per parallel worker; null: one whole GPU if available")
    log_model: Literal["pt2", "safetensors", "none"] = Field(description="format in which the result is exported to MLflow")
    register_as: str | None = Field(
        default=None, description="name in MLflow's model registry, under which the result becomes the next version; null: not registered"
    )
    register_alias: str | None = Field(
        default=None,
        description="alias that the registered version gets, such as champion, and that an earlier one loses; null: none",
    )
    checkpoint_every: int = Field(ge=0, description="epochs between checkpoints logged to MLflow; 0: none")
    evaluate: bool = Field(description="whether to measure the result after unlearning")
    evaluate_every: int = Field(ge=1, description="epochs between measurements; the last epoch of a phase is always measured")
    evaluate_retain: int | None = Field(
        ge=1,
        description="size of the fixed sample of retain images that is measured before the last epoch of a phase; null: all. An accuracy "
        "of 90 % on 5,000 images has a 95 % interval of 0.8 points to both sides, one of 99 % of 0.3; the start and the last epoch of a "
        "phase, and so the results, are measured on all",
    )
    measures: Names | None = Field(
        default=None, description="additional measures: package.module:function of functions decorated with lethe.register_measure"
    )


class Search(Section):
    """The search for better arguments of a method."""

    method: str = Field(description="method whose arguments are searched, within search.spaces.<method>")
    trials: int = Field(
        ge=1, le=1_000_000, description="total number of trials, including those finished in earlier runs of the same search"
    )
    objective: Literal["oracle_free", "oracle", "report"] = Field(
        description="what is optimised: oracle_free needs no retrained model, oracle does; report (retain up, forget down) "
        "over-forgets by construction"
    )
    sampler: Literal["tpe", "random", "gp", "nsga2"] = Field(description="Optuna's sampler")
    seed: Seed = Field(description="seed of the sampler")
    workers: int = Field(
        ge=1, le=1024, description="number of trials that run in parallel, each in its own process with run.threads threads"
    )
    gpus: float | None = Field(ge=0, description="GPU fraction per worker on a cluster; null: one whole GPU if available")
    storage: str | None = Field(
        description="URL of Optuna's storage (postgresql://user@host/db, with the password in PGPASSWORD or ~/.pgpass); "
        "null: SQLite in .lethe/trials of the workspace"
    )
    heartbeat: int = Field(ge=1, description="seconds between a trial's heartbeats; a trial that misses four is run again")
    fresh_seeds: int = Field(
        ge=0, le=MOST_MODELS, description="number of new seeds to rerun the winner with, to measure its selection bias; 0: none"
    )
    timeout: float | None = Field(gt=0, description="seconds after which no new trial starts; null: no limit")
    max_share: float | None = Field(
        default=None,
        gt=0,
        description="highest cost of a trial, as a share of retraining's; a trial that would cost more is not run; null: no limit",
    )
    prune: bool = Field(description="whether to stop trials early that have no chance of a good result")
    prune_margin: float = Field(gt=0, description="points of utility a trial must be below the original or other trials to be stopped")


class Evaluate(Section):
    """Additional columns of logits tables, for the measures that need them."""

    perturbed: int | None = Field(
        default=1000,
        ge=1,
        description="perturbed copies of forget images, for each radius, that a model classifies for residual: as many images as possible, "
        "the same for every model, and at most 16 copies of one; a table that holds more is used as it is; null: 16 of every image",
    )
    features: bool = Field(
        description="whether logits tables also store the input of the last linear layer for forget and test images, which cka needs "
        "(4 bytes x features x images); a reference bank has it only if it was created with this on"
    )
    relearn: int = Field(
        ge=0,
        le=1_000_000,
        description="optimizer steps of fine-tuning a copy of the model on forget, recorded in its logits table for the measure relearn "
        "(not in those of a bank's originals, with which it compares nothing); 0: none",
    )
    relearn_lr: float = Field(gt=0, description="learning rate of the fine-tuning for relearn, by plain SGD")
    relearn_batch_size: int = Field(ge=1, description="forget images per batch of the fine-tuning for relearn")
    swap: bool = Field(
        description="whether evaluate also trains an original with validation images in place of forget, and unlearns those images "
        "from it, for swap.advantage"
    )
    shadows: int = Field(
        ge=0,
        le=MOST_MODELS,
        description="number of shadow models for ulira, which needs 64; each is trained on retain and a random half of forget and "
        "equally many validation images, then unlearns that half; 0: none",
    )


class CardSection(Section):
    """The unlearning card."""

    thumbnails: int = Field(ge=0, le=24, description="maximum number of thumbnails of forgotten images on the unlearning card; 0: none")
    signing_key: Path | None = Field(
        None,
        description="PEM file of the Ed25519 private key that signs unlearning cards and the ledger's lines; null: they have hashes alone",
    )
    smallest_class: int = Field(
        10, ge=1, description="the unlearning card names a class only if the request has at least this many images of it; 1: every class"
    )
    remains: Conditions | None = Field(
        None,
        description="what still holds the images out of this program's reach, and until when, as name=YYYY-MM-DD (several: "
        "backups=2027-01-31,archive=2027-06-30); stated on the card and on the page for the person once they are erased; null: not stated",
    )

    @field_validator("remains")
    @classmethod
    def _dated(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for one in value or ():
            date.fromisoformat(one.rpartition("=")[2])
        return value


class Space(Section):
    """The search space of one argument: a range or choices; `when` limits it to some values of earlier arguments."""

    low: float | None = Field(None, description="lower bound, inclusive")
    high: float | None = Field(None, description="upper bound, inclusive")
    step: float | None = Field(None, gt=0, description="distance between values, from low on")
    log: bool = Field(False, description="whether to sample on a logarithmic scale")
    choices: Listed | None = Field(None, min_length=1, description="values to choose from")
    when: dict[str, Listed] = Field({}, description="only searched when these arguments have one of these values")


SECTIONS: dict[str, type[Section]] = {
    "data": DataSection,
    "model": ModelSection,
    "pretrain": Pretrain,
    "retrain": Retrain,
    "run": Run,
    "evaluate": Evaluate,
    "search": Search,
    "card": CardSection,
}


# --- as dotted names --------------------------------------------------------------------------------------------------


def leaves(kind: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Yield every key of a section and of the sections in it.

    Args:
        kind: schema of the section.
        prefix: dotted name of the section.

    Yields:
        Dotted key and its field.
    """
    for name, info in kind.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from leaves(info.annotation, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", info


def flatten(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Flatten nested mappings.

    Args:
        tree: values and mappings by name.
        prefix: dotted name of the tree; "": none.

    Returns:
        Dotted key -> value; an empty mapping has none.
    """
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        flat |= flatten(value, key) if isinstance(value, Mapping) else {key: value}
    return flat
