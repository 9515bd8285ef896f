"""Configuration: params.yaml and the command line, typed in one place.

A field's annotation is type, range, unit and meaning at once; the parser, --help, docs/keys.md and every message come from it.
"""

import difflib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, ValidationInfo, create_model, field_validator
from pydantic.fields import FieldInfo

from unlearning.checkout import here, root
from unlearning.errors import BadInput
from unlearning.methods import METHODS, Training, as_run
from unlearning.recipe import Recipe
from unlearning.schedule import Shape


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Text = Annotated[str, BeforeValidator(_plain)]
Names = Annotated[tuple[Text, ...], BeforeValidator(_split), Field(min_length=1)]
Positive = Annotated[float, Field(gt=0)]
Three = Annotated[tuple[float, float, float], BeforeValidator(_split)]
ThreePositive = Annotated[tuple[Positive, Positive, Positive], BeforeValidator(_split)]
Epochs = Annotated[int, Field(ge=0)]
Listed = Annotated[tuple[Any, ...], BeforeValidator(_split)]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """A part of params.yaml: no unknown keys, no NaN, no key left out, never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and bool not in _unfold(cls.model_fields[str(info.field_name)].annotation, [])[0]:
            raise ValueError
        return value


class Forget(Section):
    fraction: float | None = Field(gt=0, lt=1, description="share of the train images, drawn with data.seed")
    count: int | None = Field(ge=1, description="number of train images, drawn with data.seed")
    classes: Names | None = Field(description="all train images of these classes")
    ids: Path | None = Field(description="a CSV (column id) or text file with one id a line: a deletion request")


class DataSection(Section):
    source: Literal["cifar10", "image_folder", "digits"] = Field(description="where the images come from")
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


class Retrain(Section):
    checkpoint: str | None = Field(description="take this file or URL as the retrained reference instead of training")
    epochs: Epochs | None = Field(description="null: as pretrain.epochs")
    final_epochs: Epochs | None = Field(description="null: as pretrain.final_epochs")


class Run(Section):
    workspace: Path = Field(description="the folder under which data/, models/, epochs/, logits/ and scores/ stand")
    seed: int = Field(ge=0, description="of weights and of the order of batches")
    device: str = Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, mps, cuda or cuda:<n>")
    precision: Literal["float32", "bfloat16", "auto"] = Field(description="auto: bfloat16 on a GPU that has it, else float32")
    channels_last: bool = Field(description="memory format of images and weights")
    cache: int = Field(ge=0, description="MiB that what frozen layers give may take, computed once unless batchnorm is train; 0: never")
    threads: int | None = Field(ge=1, description="CPU threads; null: torch's own choice")
    log_model: Literal["pt2", "safetensors", "none"] = Field(description="how the result is exported to MLflow")
    checkpoint_every: int = Field(ge=0, description="log a checkpoint every so many epochs; 0: never")
    evaluate: bool = Field(description="measure the result right after unlearning")
    evaluate_every: int = Field(ge=1, description="epochs between measurements; the last of a phase is always measured")


class Search(Section):
    method: str = Field(description="whose arguments to search; its space stands under search.spaces.<method>")
    trials: int = Field(ge=1, description="how many in all; those that an earlier run of the same search finished count")
    objective: Literal["oracle_free", "oracle", "report"] = Field(
        description="oracle_free needs no retrained model; report (retain up, forget down) over-forgets by construction"
    )
    sampler: Literal["tpe", "random", "gp", "nsga2"] = Field(description="Optuna's; tpe is its default")
    seed: int = Field(ge=0, description="of the sampler")
    storage: str | None = Field(description="Optuna's storage as a URL; null: SQLite in .lethe/trials of the workspace")
    timeout: float | None = Field(gt=0, description="seconds behind which no further trial begins")
    prune: bool = Field(description="stop trials that can't become good any more")
    prune_margin: float = Field(gt=0, description="points of utility by which a trial must lie behind to be stopped")


class Space(Section):
    """Where a search looks for one argument: a range (`log`: on a log scale) or choices; `when`: only at these values of earlier ones."""

    low: float | None = Field(None, description="lower bound, included")
    high: float | None = Field(None, description="upper bound, included")
    step: float | None = Field(None, gt=0, description="from low on in such steps")
    log: bool = Field(False, description="evenly on a logarithmic scale")
    choices: Listed | None = Field(None, min_length=1, description="any of these")
    when: dict[str, Listed] = Field({}, description="searched only while these arguments have one of these values")


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
    trains: Names = Field(description="blocks that train, or: all")
    batchnorm: Literal["train", "eval_frozen", "eval"] = Field(description="eval_frozen: frozen layers keep their statistics")
    keep: Literal["last", "best"] = Field(description="best: end on the final phase's epoch with the highest validation accuracy")
    share: float = Field(gt=0, description="multiplies the notebook's epochs")


@cache
def method_section(name: str) -> type[Section]:
    """The section `methods.<name>`: exactly the method function's arguments."""
    function = as_run if name == "as_run" else METHODS[name]
    own = [p for p in inspect.signature(function).parameters if p != "training"]
    words = [*own, *Training.__dataclass_fields__]
    fields: dict[str, Any] = {word: (_annotation(Arguments, word), Arguments.model_fields[word]) for word in words}
    return create_model(name, __base__=Section, **fields)


def _annotation(section: type[BaseModel], word: str) -> Any:
    return section.model_fields[word].annotation


@dataclass(frozen=True)
class Config:
    """The whole configuration, resolved. `methods` holds each method's validated arguments; `like` what a variant is built on."""

    data: DataSection
    model: ModelSection
    pretrain: Pretrain
    retrain: Retrain
    run: Run
    method: str
    methods: Mapping[str, Section]
    like: Mapping[str, str]
    search: Search
    spaces: Mapping[str, Mapping[str, Space]]
    given: Mapping[str, str] = field(default_factory=dict)  # by an overlay or the command line

    @property
    def workspace(self) -> Path:
        return here() / self.run.workspace.expanduser()

    def path(self, path: Path) -> Path:
        return root() / path.expanduser()

    @property
    def chain(self) -> bool:
        return self.like[self.method] == "as_run"

    @property
    def space(self) -> Mapping[str, Space]:
        """What a search may change of the method: under its own name, else as for the method that it is like."""
        return self.spaces.get(self.method) or self.spaces.get(self.like[self.method], {})

    def changed(self, arguments: Mapping[str, Any]) -> "Config":
        """The same with other arguments of the method. Raises pydantic's ValidationError."""
        own = self.methods[self.method]
        anew = type(own).model_validate(own.model_dump() | dict(arguments))
        return replace(self, methods={**self.methods, self.method: anew})

    def recipe(self) -> Recipe:
        return METHODS[self.like[self.method]](*self._arguments())

    def chain_recipes(self) -> dict[str, Recipe]:
        return as_run(*self._arguments())

    def _arguments(self) -> tuple[Any, ...]:
        said = {name: getattr(self.methods[self.method], name) for name in type(self.methods[self.method]).model_fields}
        training = Training(**{name: said.pop(name) for name in Training.__dataclass_fields__})
        return (training, *said.values())

    def resolved(self, name: str | None = None) -> dict[str, Any]:
        """Dotted key -> value of every key that matters to a row: the original's, the retrained model's or a method's."""
        sections = {"original": ("data", "model", "pretrain", "run"), "retrained": ("data", "model", "pretrain", "retrain", "run")}
        flat: dict[str, Any] = {}
        for section in sections.get(name or "", ("data", "model", "run")):
            flat |= flatten(getattr(self, section).model_dump(mode="json"), section)
        if name not in sections:
            own = self.methods[self.method].model_dump(mode="json")
            flat |= {"method": self.method} | flatten(own, f"methods.{self.method}")
        return {key: _show(value) if isinstance(value, list) else value for key, value in flat.items()}

    def as_json(self) -> str:
        """All of it, every method included."""
        said = {name: getattr(self, name).model_dump(mode="json") for name in SECTIONS}
        methods = {name: section.model_dump(mode="json") for name, section in self.methods.items()}
        return json.dumps({**said, "method": self.method, "methods": methods}, indent=2)


SECTIONS: dict[str, type[Section]] = {
    "data": DataSection,
    "model": ModelSection,
    "pretrain": Pretrain,
    "retrain": Retrain,
    "run": Run,
    "search": Search,
}


def load(argv: Sequence[str] = (), *, overlay: str | None = None, params: Path | None = None) -> Config:
    """params.yaml, then its section `overlay`, then `--key value` pairs. Raises BadInput: one line, naming key, value and source."""
    said = _Said(params or here() / "params.yaml")
    if overlay:
        said.overlay(overlay)
    said.command_line(argv)
    methods, like = said.methods()
    spaces = _spaces(said, methods)
    sections = {name: said.section(name, kind) for name, kind in SECTIONS.items()}
    method = said.value("method")
    if method not in methods:
        raise BadInput(said.complaint("method", f"it takes {', '.join(methods)}"))
    config = Config(method=method, methods=methods, like=like, spaces=spaces, given=said.laid | said.given, **sections)  # type: ignore[arg-type]
    wanted = config.search.method
    if wanted not in methods or not replace(config, method=wanted).space:
        raise BadInput(said.complaint("search.method", f"it takes a method with a space in search.spaces: {', '.join(config.spaces)}"))
    _check_forget(config, said)
    if config.data.source == "image_folder" and config.data.root is None:
        raise BadInput("data.root is null; with data.source image_folder it takes a folder with train/<class>/* and test/<class>/*")
    return config


def _check_forget(config: Config, said: "_Said") -> None:
    asked = [name for name in Forget.model_fields if getattr(config.data.forget, name) is not None]
    if len(asked) != 1:
        what = "none of them is set" if not asked else f"{' and '.join(asked)} are set"
        raise BadInput(f"data.forget: {what}; it takes exactly one of {', '.join(Forget.model_fields)}")


def _spaces(said: "_Said", methods: Mapping[str, Section]) -> dict[str, dict[str, Space]]:
    """search.spaces, every bound and choice held against what the argument takes."""
    trees = said.value("search.spaces")
    if not isinstance(trees, dict):
        raise BadInput(f"search.spaces is {_show(trees)} ({said.where('search.spaces')}); it takes a section for each method")
    spaces: dict[str, dict[str, Space]] = {}
    for name, own in trees.items():
        key = f"search.spaces.{name}"
        if name not in methods or name == "as_run":
            raise BadInput(said.unknown(key))
        if not isinstance(own, dict):
            raise BadInput(f"{key} is {own!r} ({said.where(key)}); it takes a space for each argument")
        spaces[name] = {}
        for word, tree in own.items():
            if word not in type(methods[name]).model_fields:
                raise BadInput(said.unknown(f"{key}.{word}"))
            if tree is not None:  # null on the command line takes an argument out of the search
                spaces[name][word] = _space(said, f"{key}.{word}", word, tree, methods[name], spaces[name])
    del said.tree["search"]["spaces"]
    return spaces


def _space(said: "_Said", key: str, word: str, tree: Any, own: Section, before: Mapping[str, Space]) -> Space:
    space = said.section(key, Space, tree)
    assert isinstance(space, Space)

    def refuse(part: str, accepted: str) -> BadInput:
        return BadInput(f"{key}.{part} is {_show(getattr(space, part))} ({said.where(f'{key}.{part}')}); {accepted}")

    def taken(argument: str, value: Any, part: str) -> Any:
        """As the method's section has it; names as one text, which is what Optuna stores."""
        try:
            found = getattr(type(own).model_validate(own.model_dump() | {argument: value}), argument)
        except ValidationError:
            accepted = accepts(type(own).model_fields[argument])
            raise BadInput(f"{key}.{part} has {_show(value)} ({said.where(f'{key}.{part}')}); {argument} takes {accepted}") from None
        return _show(found) if isinstance(found, tuple) else found

    changes: dict[str, Any] = {}
    kinds, _ = _unfold(type(own).model_fields[word].annotation, [])
    if space.choices is not None:
        if any(value is not None for value in (space.low, space.high, space.step)) or space.log:
            raise BadInput(f"{key} ({said.where(key)}) has choices and a range; it takes one of them")
        changes["choices"] = tuple(taken(word, value, "choices") for value in space.choices)
        if len(set(changes["choices"])) < len(space.choices):
            raise refuse("choices", "it takes different ones")
    elif not {int, float} & set(kinds):
        raise BadInput(f"{key} ({said.where(key)}) has no choices; {word} takes {accepts(type(own).model_fields[word])}: choices: [...]")
    else:
        if space.low is None or space.high is None:
            raise BadInput(f"{key} ({said.where(key)}) lacks {'low' if space.low is None else 'high'}; it takes low and high, or choices")
        if space.low >= space.high:
            raise refuse("low", f"it takes a number below high, which is {_show(space.high)}")
        if space.log and space.low <= 0:
            raise refuse("low", "with log it takes a number above 0")
        if space.log and space.step is not None:
            raise refuse("step", "with log it takes none")
        if space.step is not None and (Decimal(str(space.high)) - Decimal(str(space.low))) % Decimal(str(space.step)):
            raise refuse("step", "it takes a number that divides high - low")
        if int in kinds and space.step is not None and space.step % 1:
            raise refuse("step", f"{word} takes whole numbers")
        changes = {part: taken(word, getattr(space, part), part) for part in ("low", "high")}
    changes["when"] = {}
    for argument, values in space.when.items():
        if argument not in before:
            earlier = ", ".join(before) or "none does"
            raise BadInput(
                f"{key}.when.{argument} ({said.where(f'{key}.when')}): it takes an argument whose space stands before it: {earlier}"
            )
        changes["when"][argument] = tuple(taken(argument, value, "when") for value in values)
    return space.model_copy(update=changes)


class _Said:
    """What the file and the command line said, with where each value came from."""

    def __init__(self, params: Path) -> None:
        from ruamel.yaml import YAML
        from ruamel.yaml.error import YAMLError

        self.params = params
        try:
            self.tree: dict[str, Any] = YAML(typ="safe", pure=True).load(params.read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            raise BadInput(f"{params} does not exist") from None
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"{params} can't be read: {error}") from None
        except YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}" if mark else ""
            raise BadInput(f"{params.name}{where}: {getattr(error, 'problem', None) or 'no YAML'}") from None
        if not isinstance(self.tree, dict):
            raise BadInput(f"{params.name}: it takes sections, not {self.tree!r}")
        self.overlays = {name: self.tree.pop(name, None) or {} for name in OVERLAYS}
        self.given: dict[str, str] = {}
        self.laid: dict[str, str] = {}
        self.prefix: dict[str, str] = {}
        unknown = [name for name in self.tree if name not in (*SECTIONS, "method", "methods")]
        if unknown:
            raise BadInput(self.unknown(unknown[0]))

    def overlay(self, name: str) -> None:
        over = flatten(self.overlays[name], "")
        if any(key.startswith("data.forget.") for key in over):
            self._clear_forget()
        for key, value in over.items():
            self._set(key, value)
            self.prefix[key] = f"{name}."
            self.laid[key] = _show(value)

    def command_line(self, argv: Sequence[str]) -> None:
        tokens = iter(argv)
        for token in tokens:
            if not token.startswith("--"):
                raise BadInput(f"{token!r} is not understood; it takes --key value, e.g. --run.seed 1")
            key, equals, value = token[2:].partition("=")
            if not equals:
                value = next(tokens, None)  # type: ignore[assignment]
                if value is None:
                    raise BadInput(f"{key} has no value (command line); it takes --{key} <value>")
            if key in self.given:
                raise BadInput(f"{key} is given twice (command line): {self.given[key]} and {value}")
            self.given[key] = value
        named = [key for key in self.given if key.startswith("data.forget.")]
        if len(named) > 1:
            raise BadInput(f"{' and '.join(named)} are both given (command line); it takes one of them")
        if named:
            self._clear_forget()
            self.laid = {key: value for key, value in self.laid.items() if not key.startswith("data.forget.")}
        for key, value in sorted(self.given.items(), key=lambda pair: not _names_base(pair[0])):  # a variant's keys are its base's
            if not _names_base(key) and key not in self.known():
                raise BadInput(self.unknown(key))
            self._set(key, None if value in ("null", "None", "~") else value)

    def _clear_forget(self) -> None:
        data = self.tree.get("data")
        if isinstance(data, dict):
            data["forget"] = dict.fromkeys(Forget.model_fields)

    def _set(self, key: str, value: Any) -> None:
        *parents, leaf = key.split(".")
        node = self.tree
        for parent in parents:
            child = node.setdefault(parent, {})
            if not isinstance(child, dict):
                raise BadInput(f"{parent} is {child!r} ({self.params.name}); it takes a section")
            node = child
        node[leaf] = value

    def value(self, key: str) -> Any:
        node: Any = self.tree
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def section(self, name: str, kind: type[Section], tree: Any = None) -> Section:
        try:
            return kind.model_validate(self.value(name) if tree is None else tree)
        except ValidationError as error:
            raise BadInput(self._explain(name, kind, error)) from None

    def methods(self) -> tuple[dict[str, Section], dict[str, str]]:
        said = self.value("methods")
        if not isinstance(said, dict):
            raise BadInput(f"methods is {_show(said)} ({self.where('methods')}); it takes a section for each method")
        known: dict[str, Section] = {}
        like: dict[str, str] = {}
        for name, own in said.items():
            base = own.get("like") if isinstance(own, dict) else None
            chain: list[str] = [name]
            tree = dict(own) if isinstance(own, dict) else own
            while base is not None:
                if not isinstance(base, str) or base in chain or not isinstance(said.get(base), dict):
                    raise BadInput(f"methods.{name}.like is {base!r}; it takes another method: {', '.join(k for k in said if k != name)}")
                tree = {**said[base], **tree}
                chain.append(base)
                base = said[base].get("like")
            if isinstance(tree, dict):
                tree.pop("like", None)
            like[name] = chain[-1]
            if like[name] not in (*METHODS, "as_run"):
                near = difflib.get_close_matches(name, [*METHODS, "as_run"], 1, 0.0)[0]
                raise BadInput(
                    f"methods.{name} ({self.where(f'methods.{name}')}) is unknown; nearest: methods.{near}; a variant says like: <method>"
                )
            known[name] = self.section(f"methods.{name}", method_section(like[name]), tree)
        return known, like

    def known(self) -> list[str]:
        """Every dotted key that may be given."""
        keys = [key for name, kind in SECTIONS.items() for key, _ in leaves(kind, name)] + ["method"]
        said = self.value("methods")
        for name in said if isinstance(said, dict) else ():
            base, chain = name, set()
            while isinstance(said.get(base), dict) and isinstance(said[base].get("like"), str) and base not in chain:
                chain.add(base)
                base = said[base]["like"]
            if base in (*METHODS, "as_run"):
                keys += [key for key, _ in leaves(method_section(base), f"methods.{name}")]
            if base in METHODS:
                for word in method_section(base).model_fields:
                    key = f"search.spaces.{name}.{word}"
                    keys += [key, *(f"{key}.{part}" for part in Space.model_fields if part != "when")]
        return keys

    def unknown(self, key: str) -> str:
        near = difflib.get_close_matches(key, self.known(), 1, 0.0)
        return f"{key} is unknown ({self.where(key)}); nearest: {near[0] if near else 'none'}"

    def complaint(self, key: str, accepted: str) -> str:
        return f"{key} is {_show(self.value(key))} ({self.where(key)}); {accepted}"

    def where(self, key: str) -> str:
        if key in self.given:
            return "command line"
        line = _line(self.params, self.prefix.get(key, "") + key)
        return self.params.name + (f", line {line}" if line else "")

    def _explain(self, name: str, kind: type[Section], error: ValidationError) -> str:
        first = error.errors()[0]
        loc = [str(part) for part in first["loc"]]
        section: Any = kind
        path = [name]
        for part in loc:
            if not (isinstance(section, type) and issubclass(section, BaseModel)):
                break
            path.append(part)
            info = section.model_fields.get(part)
            if info is None:
                break
            section = info.annotation
        key = ".".join(path)
        if first["type"] == "extra_forbidden":
            return self.unknown(key)
        info = dict(leaves(kind, name)).get(key)
        accepted = f"it takes {accepts(info)}" if info else "it takes a section"
        if first["type"] == "missing" and self.value(key) is None:
            return f"{key} is missing ({self.params.name}); {accepted}"
        value = self.value(key)
        if value is None and isinstance(first.get("input"), str | int | float):
            value = first["input"]
        return f"{key} is {_show(value)} ({self.where(key)}); {accepted}"


OVERLAYS = ("demo",)


def _names_base(key: str) -> bool:
    """`methods.<variant>.like`"""
    return key.startswith("methods.") and key.endswith(".like") and key.count(".") == 2


def leaves(kind: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    """Dotted key and field of everything below a section."""
    for name, info in kind.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from leaves(info.annotation, f"{prefix}.{name}")
        else:
            yield f"{prefix}.{name}", info


def accepts(info: FieldInfo) -> str:
    """What a key takes, in words, from its annotation: type, range, whether null."""
    kinds, marks = _unfold(info.annotation, list(info.metadata))
    words = " or ".join(dict.fromkeys(_word(kind, marks) for kind in kinds if kind is not NoneType))
    return words + (" or null" if NoneType in kinds else "")


def _unfold(annotation: Any, marks: list[Any]) -> tuple[list[Any], list[Any]]:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        parts = [_unfold(part, []) for part in get_args(annotation)]
        return [kind for kinds, _ in parts for kind in kinds], marks + [mark for _, more in parts for mark in more]
    if origin is Annotated:
        inner, *more = get_args(annotation)
        for one in more:
            marks = marks + (list(one.metadata) if isinstance(one, FieldInfo) else [one])
        return _unfold(inner, marks)
    return [annotation], marks


def _word(kind: Any, marks: list[Any]) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(str(choice) for choice in get_args(kind))
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return (
            "names, as a,b" if Ellipsis in inner else f"{len(inner)} numbers{' above 0' if inner[0] is not float else ''}, as 0.5,0.5,0.5"
        )
    noun = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path", str: "a text"}[kind]
    if kind in (int, float):
        bounds = []
        for mark in marks:
            for attribute, says in (("gt", "above"), ("ge", "from"), ("lt", "below"), ("le", "up to")):
                if getattr(mark, attribute, None) is not None:
                    bounds.append(f"{says} {getattr(mark, attribute):g}")
        return " ".join([noun, " and ".join(bounds)]).strip()
    pattern = next((mark.pattern for mark in marks if getattr(mark, "pattern", None)), None)
    return "auto, cpu, mps, cuda or cuda:<n>" if pattern else noun


def flatten(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        flat |= flatten(value, key) if isinstance(value, Mapping) else {key: value}
    return flat


def _show(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "[]"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value) or "''"


def _line(params: Path, key: str) -> int | None:
    """The line of a dotted key in the file (from 1), for messages only."""
    from ruamel.yaml import YAML

    node: Any = YAML().load(params.read_text(encoding="utf-8"))
    line = None
    for part in key.split("."):
        if not (hasattr(node, "lc") and part in node):
            return line
        line = node.lc.key(part)[0] + 1
        node = node[part]
    return line


def manual(stage: str) -> str:
    """What --help prints: every key with type, range, meaning, and its value in params.yaml."""
    said = _Said(here() / "params.yaml")
    lines = [f"usage: python src/{stage}.py [--key value ...]", "", "Keys stand in params.yaml; what is given here wins.", ""]
    for name, kind in SECTIONS.items():
        for key, info in leaves(kind, name):
            lines += [f"  --{key}  {accepts(info)}", f"      {info.description} [{_show(said.value(key))}]"]
    lines += ["  --method  " + ", ".join(said.value("methods")), f"      what to unlearn by [{said.value('method')}]", ""]
    lines += ["  --methods.<method>.<argument>, where that method has it; for defaults see params.yaml or docs/keys.md", ""]
    for word, info in Arguments.model_fields.items():
        having = [name for name in (*METHODS, "as_run") if word in method_section(name).model_fields]
        who = "" if len(having) == len(METHODS) + 1 else f" ({', '.join(having)})"
        lines += [f"  --methods.<method>.{word}  {accepts(info)}", f"      {info.description}{who}"]
    if stage == "search":
        lines += [
            "  --search.spaces.<method>.<argument>.<low, high, step, log or choices>, to search elsewhere than params.yaml says",
            "  --search.spaces.<method>.<argument> null, to leave it as it is",
            "",
            "usage: python src/search.py adopt <trial> [<name>] [--key value ...]",
            "  write a finished trial of the newest such search into params.yaml, as a variant of its method",
        ]
    if stage == "unlearn":
        lines += [
            "",
            "  --explain  say what would happen, run nothing",
            "  --time     with --explain: measure three steps on random tensors",
        ]
    return "\n".join(lines)
