"""Configuration: params.yaml, the workspace's settings, the file of --config and the command line, as one value."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lethe._util.checkout import here, params_file, root
from lethe._util.errors import UserError
from lethe._util.files import user_path
from lethe.config.describe import show, unknown_method
from lethe.config.layers import given_keys, layers
from lethe.config.method_schema import UnreadArguments
from lethe.config.reader import Reader
from lethe.config.schema import (
    SECTIONS,
    CardSection,
    DataSection,
    Evaluate,
    ModelSection,
    Pretrain,
    Retrain,
    Run,
    Search,
    Space,
    flatten,
)
from lethe.config.section import Section
from lethe.config.source_map import REQUEST, Layer, SourceMap
from lethe.data import sources as data_sources
from lethe.data.request import KINDS
from lethe.recipes.from_scratch import enough_steps, from_scratch, own_arguments, own_recipe
from lethe.recipes.recipe import Recipe, Stream
from lethe.recipes.registry import find_method

STAGE = {"original": "pretrain", "retrained": "retrain"}  # reference -> its section of params.yaml, and its stage
RECIPE = (  # keys of pretrain
    *("epochs", "final_epochs", "lr", "final_lr", "momentum", "weight_decay", "batch_size", "crop", "flip"),
    *("lr_schedule", "warmup", "optimizer", "label_smoothing", "class_weights", "augment"),
)
ADAM_RATE = 0.005  # a learning rate above which Adam is not meant


@dataclass(frozen=True)
class Config:
    """The whole configuration, resolved. Each section of params.yaml is a field.

    Args:
        method: name of the method.
        methods: validated arguments by method.
        like: by method, the registered method that it is built on.
        spaces: search spaces by method and argument.
        given: key -> text of the keys that this command sets: by its overlay, its --config file and the command line.
        laid: key -> text of the keys of its overlay.
        settings: key -> text of the workspace's settings.
    """

    data: DataSection
    model: ModelSection
    pretrain: Pretrain
    retrain: Retrain
    run: Run
    method: str
    methods: Mapping[str, Section]
    like: Mapping[str, str]
    evaluate: Evaluate
    search: Search
    card: CardSection
    spaces: Mapping[str, Mapping[str, Space]]
    given: Mapping[str, str] = field(default_factory=dict)
    laid: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def applied_settings(self) -> Mapping[str, str]:
        """The workspace's settings that this command does not override."""
        request = not REQUEST.isdisjoint(self.given)
        named = {key for key in self.settings if key in self.given or (request and key in REQUEST)}
        return {key: text for key, text in self.settings.items() if key not in named}

    @property
    def workspace(self) -> Path:
        """The folder of the workspace; a relative run.workspace is below `here()`."""
        return here() / user_path(self.run.workspace)

    @property
    def workspace_name(self) -> str | None:
        """Its path below the checkout, else its folder's name: nothing else of the machine shows. None: it is the checkout."""
        folder, base = self.workspace.resolve(), here().resolve()
        if folder == base:
            return None
        return folder.relative_to(base).as_posix() if folder.is_relative_to(base) else folder.name

    def path(self, path: Path) -> Path:
        """Resolve a path that a key gives: relative ones below `root()`."""
        return root() / user_path(path)

    @property
    def chain(self) -> bool:
        """Whether the method is a chain of runs, each from the result of the one before. Not one whose code is gone."""
        return not isinstance(self.methods[self.method], UnreadArguments) and find_method(self.like[self.method]).chain

    @property
    def space(self) -> Mapping[str, Space]:
        """The search space of the method: its own, else that of the method that it is like."""
        return self.spaces.get(self.method) or self.spaces.get(self.like[self.method], {})

    def changed(self, arguments: Mapping[str, Any]) -> "Config":
        """The configuration with other arguments of the method.

        Raises:
            pydantic.ValidationError: an argument is unknown or out of range.
        """
        own = self.methods[self.method]
        changed = type(own).model_validate(own.model_dump() | dict(arguments))
        return replace(self, methods={**self.methods, self.method: changed})

    def recipe(self) -> Recipe:
        """The method's recipe."""
        recipe: Recipe = find_method(self.like[self.method]).build(dict(self.methods[self.method]))
        return recipe

    def reference_recipe(self, kind: str, images: int | None = None) -> Recipe:
        """The recipe of a reference.

        Args:
            kind: original or retrained.
            images: number of the original's training images, for pretrain.min_steps; None: the numbers as they are set.

        Returns:
            The user's own where pretrain.recipe names a function, otherwise training from scratch; it trains on the stream "train" for
            the original, and on "retain" for the retrained model, whose epochs are those of `retrain` where they are set.

        Raises:
            UserError: the function of pretrain.recipe can't be imported or called, or returns something else.
        """
        numbers, own = self.pretrain.model_dump(include={*RECIPE}), self.pretrain.recipe
        as_set = own is not None or (self.names(*RECIPE) and not self.names("min_steps"))
        if images is not None and not as_set:
            numbers = enough_steps(numbers, images, self.pretrain.min_steps)
        if kind == "retrained":
            numbers |= self.retrain.model_dump(include={"epochs", "final_epochs"}, exclude_none=True)
        stream: Stream = "train" if kind == "original" else "retain"
        return from_scratch(stream, **numbers) if own is None else own_recipe(own, stream, numbers)

    def names(self, *keys: str) -> bool:
        """Whether this command or the workspace's settings name one of these keys of pretrain: then it is meant as it is."""
        return any(f"pretrain.{key}" in layer for key in keys for layer in (self.given, self.settings))

    def chain_recipes(self) -> dict[str, Recipe]:
        """The recipes of a chain, by name."""
        recipes: dict[str, Recipe] = find_method(self.like[self.method]).build(dict(self.methods[self.method]))
        return recipes

    def resolved(self, name: str | None = None) -> dict[str, Any]:
        """Dotted key -> value of the keys that a run depends on; `name`: original, retrained, or None for the method."""
        sections = {"original": ("data", "model", "pretrain", "run"), "retrained": ("data", "model", "pretrain", "retrain", "run")}
        flat: dict[str, Any] = {}
        for section in sections.get(name or "", ("data", "model", "run")):
            flat |= flatten(getattr(self, section).model_dump(mode="json"), section)
        for section in ("pretrain", "retrain"):  # the number of models in the bank does not affect a model, and may grow
            flat.pop(f"{section}.seeds", None)
        if name not in sections:
            own = self.methods[self.method].model_dump(mode="json")
            flat |= {"method": self.method} | flatten(own, f"methods.{self.method}")
        return {key: show(value) if isinstance(value, list) else value for key, value in flat.items()}

    def as_json(self) -> str:
        """The configuration as JSON, in the form of params.yaml, with all methods and spaces."""
        tree = {name: getattr(self, name).model_dump(mode="json") for name in SECTIONS}
        methods = {
            name: ({"like": self.like[name]} if self.like[name] != name else {}) | section.model_dump(mode="json")
            for name, section in self.methods.items()
        }
        tree["search"]["spaces"] = {
            name: {word: space.model_dump(mode="json", exclude_defaults=True) for word, space in own.items()}
            for name, own in self.spaces.items()
        }
        return json.dumps({**tree, "method": self.method, "methods": methods}, indent=2)


def load(
    argv: Sequence[str] = (),
    *,
    overlay: str | None = None,
    params: Path | None = None,
    settings: Callable[[Path], Layer] | None = None,
) -> Config:
    """Load the configuration from its layers, of which a later one wins: params.yaml, the workspace's settings, the section `overlay` of
    params.yaml, the file of `--config`, and the command line.

    Args:
        argv: `--key value` or `--key=value`, and `--config FILE`.
        overlay: `demo` or `full`.
        params: in place of the project's params.yaml.
        settings: returns the layer of a workspace's settings, by its folder; None: that layer is empty.

    Returns:
        The configuration, checked: each value, and keys that depend on each other.

    Raises:
        UserError: a key or a value is wrong: one line with key, value, place and what is accepted.
    """
    sources, remembered = layers(argv, overlay, params or params_file(), settings)
    reader = Reader(sources)
    methods, like = reader.methods()
    spaces = reader.spaces(methods)
    sections = {name: reader.section(name, kind) for name, kind in SECTIONS.items()}
    method = sources.value("method")
    if not isinstance(method, str) or method not in methods:
        raise unknown_method(str(method), methods, sources.place("method"), "; your own is package.module:function")
    laid = {key: show(value) for layer in sources.layers if layer.section for key, value in layer.values.items()}
    known = {"given": given_keys(sources), "laid": laid, "settings": {key: show(value) for key, value in remembered.values.items()}}
    config = Config(method=method, methods=methods, like=like, spaces=spaces, **known, **sections)  # type: ignore[arg-type]
    _check(config, sources)
    return config


def _check(config: Config, sources: SourceMap) -> None:
    """Check what depends on several keys."""
    wanted = config.search.method
    if wanted not in config.methods:
        raise sources.refusal("search.method", f"it takes a method with a space in search.spaces: {', '.join(config.spaces)}")
    asked = [name for name in KINDS if getattr(config.data.forget, name) is not None]
    if len(asked) != 1:
        what = "none of them is set" if not asked else f"{' and '.join(asked)} are set"
        raise UserError(f"data.forget: {what}; it takes exactly one of {', '.join(KINDS)}")
    if config.pretrain.classes and not (config.pretrain.checkpoint or config.retrain.checkpoint):
        raise sources.refusal("pretrain.classes", "it takes a pretrain.checkpoint, whose classes have that order")
    _check_training(config, sources)
    _check_registration(config, sources)
    if config.chain and config.run.seeds > 1:
        raise sources.refusal("run.seeds", f"{config.method} is a chain of runs and takes 1")
    if config.run.originals > 1 and (config.chain or config.pretrain.checkpoint):
        given = "how the given pretrain.checkpoint was trained is not known, so no other can be trained like it"
        what = f"{config.method} is a chain of runs" if config.chain else given
        raise sources.refusal("run.originals", f"{what}: it takes 1{'' if config.chain else ', or pretrain.checkpoint null'}")
    if ":" not in config.data.source and config.data.source not in data_sources.names():
        raise sources.refusal("data.source", f"it takes {data_sources.accepted()}")
    share = config.data.held_out.fraction
    if share is not None and config.data.source in ("cifar10", "digits"):
        raise sources.refusal("data.held_out.fraction", f"data.source {config.data.source} has held-out images and takes null")
    if config.data.source == "image_folder" and config.data.root is None:
        raise UserError("data.root is null; with data.source image_folder it takes a folder with train/<class>/* and test/<class>/*")


def _check_training(config: Config, sources: SourceMap) -> None:
    """Check the keys of pretrain that depend on each other."""
    pretrain = config.pretrain
    if pretrain.recipe is not None:
        takes = own_arguments(pretrain.recipe)
        for key in RECIPE:
            if f"pretrain.{key}" in config.given and key not in takes:
                raise sources.refusal(f"pretrain.{key}", f"pretrain.recipe {pretrain.recipe} has no argument {key}")
        return
    if pretrain.warmup and pretrain.lr_schedule == "one_cycle":
        raise sources.refusal("pretrain.warmup", "pretrain.lr_schedule one_cycle has a warm-up of its own and takes 0")
    if pretrain.optimizer != "sgd":
        for key in ("lr", "final_lr"):
            if getattr(pretrain, key) > ADAM_RATE and not config.names(key):
                raise sources.refusal(
                    f"pretrain.{key}", f"that is for SGD; with pretrain.optimizer {pretrain.optimizer} give it, such as 0.001"
                )


def _check_registration(config: Config, sources: SourceMap) -> None:
    """Check the names that MLflow's model registry would refuse when the model is made already."""
    run, alias = config.run, config.run.register_alias
    if run.register_as is None:
        if alias is not None:
            raise sources.refusal("run.register_alias", "it takes a run.register_as, whose version gets it")
        return
    if not run.register_as.strip() or {"/", ":"} & {*run.register_as} or run.register_as in (".", ".."):
        raise sources.refusal("run.register_as", "it takes a name without / and :")
    if run.log_model == "none":
        raise sources.refusal("run.register_as", "run.log_model none logs no model; it takes pt2 or safetensors")
    if run.seeds > 1 or config.chain:
        raise sources.refusal("run.register_as", "one model is registered, so run.seeds is 1 and the method no chain")
    if alias is not None and (not re.fullmatch(r"[\w-]+", alias) or re.fullmatch(r"latest|v\d+", alias, re.IGNORECASE)):
        raise sources.refusal("run.register_alias", "it takes letters, digits, - and _, and neither latest nor v<number>")
