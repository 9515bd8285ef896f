"""Every key there is: what it takes, and what it means.

A field's annotation is type, range, unit and meaning at once; the parser, --help, docs/keys.md and every message come from it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from lethe.config.describe import types_of


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(value: Any) -> Any:
    """`a,b` is a list, and what stands alone a list of one."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return (value,) if _is_number(value) else value


def _plain(value: Any) -> Any:
    return str(value) if _is_number(value) else value


Text = Annotated[str, BeforeValidator(_plain)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_listed), Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
Three = Annotated[tuple[float, float, float], BeforeValidator(_listed)]
ThreePositive = Annotated[tuple[Positive, Positive, Positive], BeforeValidator(_listed)]
Epochs = Annotated[int, Field(ge=0)]
Listed = Annotated[tuple[Any, ...], BeforeValidator(_listed)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of params.yaml: no unknown keys, no NaN, no key left out, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and bool not in types_of(cls.model_fields[str(info.field_name)]):
            raise ValueError
        return value


class Forget(Section):
    fraction: float | None = Field(gt=0, lt=1, description="share of the train images, drawn with data.seed")
    count: int | None = Field(ge=1, description="number of train images, drawn with data.seed")
    classes: Names | None = Field(description="all train images of these classes")
    ids: Path | None = Field(description="a CSV (column id) or text file with one id a line: a deletion request")


class DataSection(Section):
    source: Text = Field(
        description="where the images come from: cifar10, image_folder, digits, a registered one, or package.module:function"
    )
    root: Path | None = Field(description="image_folder: holds train/<class>/* and test/<class>/*; cifar10: where the archive is kept")
    image_size: int = Field(ge=8, le=1024, description="pixels; height and width of every image")
    seed: int = Field(ge=0, description="of the draw into retain, forget, validation and test")
    limit: int | None = Field(ge=1, description="at most so many train images a class")
    mean: Three = Field(description="of each channel, pixels scaled to [0, 1]")
    std: ThreePositive = Field(description="of each channel, pixels scaled to [0, 1]")
    forget: Forget


class ModelSection(Section):
    architecture: str = Field(description="resnet18, resnet18_cifar, convnet, any of torchvision's classifiers, or package.module:function")


class Pretrain(Section):
    checkpoint: str | None = Field(description="take this .pth or .safetensors file, or <URL>#sha256=<sum>, instead of training")
    epochs: Epochs = Field(description="with a one-cycle learning rate, crop and flip")
    final_epochs: Epochs = Field(description="with a cosine learning rate, flip only")
    lr: float = Field(gt=0, description="the one-cycle's peak")
    final_lr: float = Field(gt=0, description="where the final epochs' cosine starts")
    momentum: float = Field(ge=0, lt=1, description="of SGD")
    weight_decay: float = Field(ge=0, description="of SGD")
    batch_size: int = Field(ge=2, description="images a step")
    crop: int = Field(ge=0, description="pixels of zero padding for the random crop")
    flip: bool = Field(description="random horizontal flips")
    seeds: int = Field(ge=0, description="originals in the reference bank, of the seeds behind run.seed; models/original is held out of it")


class Retrain(Section):
    checkpoint: str | None = Field(description="take this file or URL as the retrained reference instead of training")
    epochs: Epochs | None = Field(description="null: as pretrain.epochs")
    final_epochs: Epochs | None = Field(description="null: as pretrain.final_epochs")
    seeds: int = Field(ge=0, description="retrained models in the bank, of the seeds behind run.seed; models/retrained is held out of it")


class Run(Section):
    workspace: Path = Field(description="the folder under which data/, models/, epochs/, logits/ and scores/ stand")
    seed: int = Field(ge=0, description="of weights and of the order of batches")
    seeds: int = Field(ge=1, description="unlearn by so many, run.seed and those behind it, all from one original; as_run takes 1")
    device: str = Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:<n>")
    precision: Literal["float32", "bfloat16", "auto"] = Field(description="auto: bfloat16 on a GPU that has it, else float32")
    channels_last: bool = Field(description="memory format of images and weights")
    images: Literal["auto", "device", "host"] = Field(
        description="where the images are kept; auto: on the device, unless they take more than half of a GPU's free memory"
    )
    cache: int = Field(ge=0, description="MiB that what frozen layers give may take, computed once unless batchnorm is train; 0: never")
    threads: int | None = Field(ge=1, description="CPU threads; null: torch's own choice")
    workers: int = Field(
        ge=1, description="seeds, or parts of a bank, at once: processes, or tasks of the Ray cluster that RAY_ADDRESS names"
    )
    gpus: float | None = Field(ge=0, description="share of a GPU that each of several at once takes; null: a whole one, if there is any")
    log_model: Literal["pt2", "safetensors", "none"] = Field(description="how the result is exported to MLflow")
    checkpoint_every: int = Field(ge=0, description="log a checkpoint every so many epochs; 0: never")
    evaluate: bool = Field(description="measure the result right after unlearning")
    evaluate_every: int = Field(ge=1, description="epochs between measurements; the last of a phase is always measured")
    evaluate_retain: int | None = Field(
        ge=1, description="retain images that epochs before the last of a phase are measured on, a fixed sample; null: all"
    )
    measures: Names | None = Field(
        description="further measures, each as package.module:function of a function decorated with lethe.register_measure"
    )


class Search(Section):
    method: str = Field(description="whose arguments to search; its space stands under search.spaces.<method>")
    trials: int = Field(ge=1, description="how many in all; those that an earlier run of the same search finished count")
    objective: Literal["oracle_free", "oracle", "report"] = Field(
        description="oracle_free needs no retrained model; report (retain up, forget down) over-forgets by construction"
    )
    sampler: Literal["tpe", "random", "gp", "nsga2"] = Field(description="Optuna's; tpe is its default")
    seed: int = Field(ge=0, description="of the sampler")
    workers: int = Field(ge=1, description="trials at once, each in a process of its own; run.threads is each one's")
    gpus: float | None = Field(ge=0, description="share of a GPU that a worker takes on a cluster; null: a whole one, if there is any")
    storage: str | None = Field(
        description="Optuna's storage as a URL (postgresql://user@host/db; its password is better in PGPASSWORD or ~/.pgpass); "
        "null: SQLite in .lethe/trials of the workspace"
    )
    heartbeat: int = Field(ge=1, description="seconds between a trial's signs of life; it is tried again once four are missing")
    fresh_seeds: int = Field(ge=0, description="seeds with which the winner is run once more: the price of having been chosen; 0: none")
    timeout: float | None = Field(gt=0, description="seconds behind which no further trial begins")
    prune: bool = Field(description="stop trials that can't become good any more")
    prune_margin: float = Field(gt=0, description="points of utility by which a trial must lie behind to be stopped")


class Evaluate(Section):
    features: bool = Field(
        description="logits tables keep the last linear layer's input of forget and test images, for cka: "
        "4 bytes x features x images each; a bank's only where it was made with this"
    )
    relearn: int = Field(
        ge=0,
        description="optimizer steps of fine-tuning a copy on forget that logits tables keep the outcome of, for relearn; 0: none",
    )
    relearn_lr: float = Field(gt=0, description="learning rate of that fine-tuning, plain SGD")
    relearn_batch_size: int = Field(ge=1, description="forget images a step of it")
    swap: bool = Field(
        description="evaluate trains a second original, on validation images in place of forget, and unlearns those too: for swap.advantage"
    )
    shadows: int = Field(
        ge=0,
        description="evaluate trains so many originals, each on retain and half of forget and as many validation images, and unlearns that "
        "half again: for ulira, which takes 64; 0: none",
    )


class CardSection(Section):
    thumbnails: int = Field(ge=0, le=24, description="of forgotten images on the unlearning card, at most; 0: none")


class Space(Section):
    """Where a search looks for one argument: a range (`log`: on a log scale) or choices; `when`: only at these values of earlier ones."""

    low: float | None = Field(None, description="lower bound, included")
    high: float | None = Field(None, description="upper bound, included")
    step: float | None = Field(None, gt=0, description="from low on in such steps")
    log: bool = Field(False, description="evenly on a logarithmic scale")
    choices: Listed | None = Field(None, min_length=1, description="any of these")
    when: dict[str, Listed] = Field({}, description="searched only while these arguments have one of these values")


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
    """Dotted key and field of everything below a section."""
    for name, info in kind.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from leaves(info.annotation, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", info


def flatten(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Dotted key -> value of everything below a tree."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        flat |= flatten(value, key) if isinstance(value, Mapping) else {key: value}
    return flat
