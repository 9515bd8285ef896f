"""Configuration: params.yaml and the command line, held against the keys there are; what is wrong is said in one line."""

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lethe._util.checkout import here, root
from lethe._util.errors import UserError
from lethe.config.schema import (
    SECTIONS,
    CardSection,
    DataSection,
    Evaluate,
    Forget,
    ModelSection,
    Pretrain,
    Retrain,
    Run,
    Search,
    Section,
    Space,
    accepts,
    flatten,
    kinds,
    leaves,
    method_section,
)
from lethe.recipes.from_scratch import from_scratch
from lethe.recipes.paper_methods import METHODS, Training, as_run
from lethe.recipes.recipe import Recipe

STAGE = {"original": "pretrain", "retrained": "retrain"}  # reference -> its section of params.yaml, and its stage
OVERLAYS = ("demo",)  # sections of params.yaml that a stage of that name lays over the others
UPON = {"full": ("demo",)}  # those that are laid over another first: python src/demo.py --full
BASES = (*METHODS, "as_run")  # what a section of `methods` can be without saying what it is like

S = TypeVar("S", bound=Section)


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
    evaluate: Evaluate
    search: Search
    card: CardSection
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

    def reference_recipe(self, kind: str) -> Recipe:
        """How the original or the retrained model is trained."""
        said = self.pretrain.model_dump(exclude={"checkpoint", "seeds"})
        if kind == "retrained":
            said |= self.retrain.model_dump(include={"epochs", "final_epochs"}, exclude_none=True)
        return from_scratch("train" if kind == "original" else "retain", **said)

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
        for section in ("pretrain", "retrain"):  # how many others there are makes no difference to a model, and may grow
            flat.pop(f"{section}.seeds", None)
        if name not in sections:
            own = self.methods[self.method].model_dump(mode="json")
            flat |= {"method": self.method} | flatten(own, f"methods.{self.method}")
        return {key: _show(value) if isinstance(value, list) else value for key, value in flat.items()}

    def as_json(self) -> str:
        """All of it, every method and space included, as params.yaml could say it."""
        said = {name: getattr(self, name).model_dump(mode="json") for name in SECTIONS}
        methods = {name: section.model_dump(mode="json") for name, section in self.methods.items()}
        said["search"]["spaces"] = {
            name: {word: space.model_dump(mode="json", exclude_defaults=True) for word, space in own.items()}
            for name, own in self.spaces.items()
        }
        return json.dumps({**said, "method": self.method, "methods": methods}, indent=2)


def load(argv: Sequence[str] = (), *, overlay: str | None = None, params: Path | None = None) -> Config:
    """params.yaml, then its section `overlay`, then `--key value` pairs. Raises UserError: one line, naming key, value and source."""
    said = _Said(params or here() / "params.yaml")
    for name in (*UPON.get(overlay, ()), overlay) if overlay else ():
        said.overlay(name)
    said.command_line(argv)
    methods, like = said.methods()
    spaces = _spaces(said, methods)
    sections = {name: said.section(name, kind) for name, kind in SECTIONS.items()}
    method = said.value("method")
    if method not in methods:
        raise UserError(said.complaint("method", f"it takes {', '.join(methods)}"))
    config = Config(method=method, methods=methods, like=like, spaces=spaces, given=said.laid | said.given, **sections)  # type: ignore[arg-type]
    wanted = config.search.method
    if wanted not in methods or not replace(config, method=wanted).space:
        raise UserError(said.complaint("search.method", f"it takes a method with a space in search.spaces: {', '.join(config.spaces)}"))
    _check_forget(config, said)
    if config.chain and config.run.seeds > 1:
        raise UserError(said.complaint("run.seeds", f"{config.method} is a chain of runs and takes 1"))
    if config.data.source == "image_folder" and config.data.root is None:
        raise UserError("data.root is null; with data.source image_folder it takes a folder with train/<class>/* and test/<class>/*")
    return config


def _check_forget(config: Config, said: "_Said") -> None:
    asked = [name for name in Forget.model_fields if getattr(config.data.forget, name) is not None]
    if len(asked) != 1:
        what = "none of them is set" if not asked else f"{' and '.join(asked)} are set"
        raise UserError(f"data.forget: {what}; it takes exactly one of {', '.join(Forget.model_fields)}")


def _spaces(said: "_Said", methods: Mapping[str, Section]) -> dict[str, dict[str, Space]]:
    """search.spaces, every bound and choice held against what the argument takes."""
    trees = said.value("search.spaces")
    if not isinstance(trees, dict):
        raise UserError(said.complaint("search.spaces", "it takes a section for each method"))
    spaces: dict[str, dict[str, Space]] = {}
    for name, own in trees.items():
        key = f"search.spaces.{name}"
        if name not in methods or name == "as_run":
            raise UserError(said.unknown(key))
        if not isinstance(own, dict):
            raise UserError(said.complaint(key, "it takes a space for each argument"))
        spaces[name] = {}
        for word, tree in own.items():
            if word not in type(methods[name]).model_fields:
                raise UserError(said.unknown(f"{key}.{word}"))
            if tree is not None:  # null on the command line takes an argument out of the search
                space = said.section(f"{key}.{word}", Space, tree)
                spaces[name][word] = _Held(said, f"{key}.{word}", word, methods[name], space).against(spaces[name])
    del said.tree["search"]["spaces"]
    return spaces


@dataclass(frozen=True)
class _Held:
    """The space at `key`, as read, to be held against what the argument `word` of a method takes; `own` is the method's section."""

    said: "_Said"
    key: str
    word: str
    own: Section
    space: Space

    def against(self, before: Mapping[str, Space]) -> Space:
        """The space with bounds, choices and conditions as the method has them; `before`: the spaces that stand before it."""
        found = self._range() if self.space.choices is None else self._choices(self.space.choices)
        return self.space.model_copy(update=found | {"when": self._when(before)})

    def _choices(self, choices: tuple[Any, ...]) -> dict[str, Any]:
        space = self.space
        if any(value is not None for value in (space.low, space.high, space.step)) or space.log:
            raise UserError(f"{self._place()} has choices and a range; it takes one of them")
        found = tuple(self._taken(self.word, value, "choices") for value in choices)
        if len(set(found)) < len(found):
            raise self._refusal("choices", "it takes different ones")
        return {"choices": found}

    def _range(self) -> dict[str, Any]:
        space, info = self.space, type(self.own).model_fields[self.word]
        if not {int, float} & set(kinds(info)):
            raise UserError(f"{self._place()} has no choices; {self.word} takes {accepts(info)}: choices: [...]")
        if space.low is None or space.high is None:
            raise UserError(f"{self._place()} lacks {'low' if space.low is None else 'high'}; it takes low and high, or choices")
        if space.low >= space.high:
            raise self._refusal("low", f"it takes a number below high, which is {_show(space.high)}")
        if space.log and space.low <= 0:
            raise self._refusal("low", "with log it takes a number above 0")
        if space.log and space.step is not None:
            raise self._refusal("step", "with log it takes none")
        if space.step is not None and (Decimal(str(space.high)) - Decimal(str(space.low))) % Decimal(str(space.step)):
            raise self._refusal("step", "it takes a number that divides high - low")
        if int in kinds(info) and space.step is not None and space.step % 1:
            raise self._refusal("step", f"{self.word} takes whole numbers")
        return {part: self._taken(self.word, getattr(space, part), part) for part in ("low", "high")}

    def _when(self, before: Mapping[str, Space]) -> dict[str, tuple[Any, ...]]:
        for argument in self.space.when:
            if argument not in before:
                earlier = ", ".join(before) or "none does"
                where = self.said.where(f"{self.key}.when")
                raise UserError(f"{self.key}.when.{argument} ({where}): it takes an argument whose space stands before it: {earlier}")
        return {name: tuple(self._taken(name, value, "when") for value in values) for name, values in self.space.when.items()}

    def _taken(self, argument: str, value: Any, part: str) -> Any:
        """As the method's section has it; names as one text, which is what Optuna stores."""
        kind = type(self.own)
        try:
            found = getattr(kind.model_validate(self.own.model_dump() | {argument: value}), argument)
        except ValidationError:
            accepted, where = accepts(kind.model_fields[argument]), self.said.where(f"{self.key}.{part}")
            raise UserError(f"{self.key}.{part} has {_show(value)} ({where}); {argument} takes {accepted}") from None
        return _show(found) if isinstance(found, tuple) else found

    def _refusal(self, part: str, accepted: str) -> UserError:
        where = self.said.where(f"{self.key}.{part}")
        return UserError(f"{self.key}.{part} is {_show(getattr(self.space, part))} ({where}); {accepted}")

    def _place(self) -> str:
        return f"{self.key} ({self.said.where(self.key)})"


class _Said:
    """What the file and the command line said, with where each value came from."""

    def __init__(self, params: Path) -> None:
        self.params, self.tree = params, _tree(params)
        self.overlays = {name: self.tree.pop(name, None) or {} for name in (*OVERLAYS, *UPON)}
        self.given: dict[str, str] = {}
        self.laid: dict[str, str] = {}
        self.prefix: dict[str, str] = {}
        sections = (*SECTIONS, "method", "methods")
        unknown = next((name for name in self.tree if name not in sections), None)
        if unknown is not None:
            near = difflib.get_close_matches(str(unknown), sections, 1, 0.0)[0]
            raise UserError(f"{unknown} is unknown ({self.where(str(unknown))}); nearest: {near}")

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
                raise UserError(f"{token!r} is not understood; it takes --key value, e.g. --run.seed 1")
            key, equals, value = token[2:].partition("=")
            if not equals:
                value = next(tokens, None)  # type: ignore[assignment]
                if value is None:
                    raise UserError(f"{key} has no value (command line); it takes --{key} <value>")
            if key in self.given:
                raise UserError(f"{key} is given twice (command line): {self.given[key]} and {value}")
            self.given[key] = value
        named = [key for key in self.given if key.startswith("data.forget.")]
        wanted = [key for key in named if self.given[key] != "null"]
        if len(wanted) > 1:
            raise UserError(f"{' and '.join(wanted)} are both given (command line); it takes one of them")
        if named:
            self._clear_forget()
            self.laid = {key: value for key, value in self.laid.items() if not key.startswith("data.forget.")}
        for key, value in sorted(self.given.items(), key=lambda pair: not _names_base(pair[0])):  # a variant's keys are its base's
            if not _names_base(key) and key not in self.known():
                raise UserError(self.unknown(key))
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
                raise UserError(f"{parent} is {child!r} ({self.params.name}); it takes a section")
            node = child
        node[leaf] = value

    def value(self, key: str) -> Any:
        node: Any = self.tree
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def section(self, name: str, kind: type[S], tree: Any = None) -> S:
        try:
            return kind.model_validate(self.value(name) if tree is None else tree)
        except ValidationError as error:
            raise UserError(self._explain(name, kind, error)) from None

    def methods(self) -> tuple[dict[str, Section], dict[str, str]]:
        """Each method's arguments, and what it is built on: itself, or for a variant the method at the end of its `like`s."""
        said = self.value("methods")
        if not isinstance(said, dict):
            raise UserError(self.complaint("methods", "it takes a section for each method"))
        known: dict[str, Section] = {}
        like: dict[str, str] = {}
        for name, own in said.items():
            line = self._line_of(name)
            base, key = line[-1], f"methods.{line[-1]}"
            if (wrong := _like(said[base])) is not None:
                others = ", ".join(other for other in said if other not in line)
                raise UserError(f"{key}.like is {wrong!r}; it takes another method: {others}")
            if base not in BASES:
                near = difflib.get_close_matches(base, BASES, 1, 0.0)[0]
                raise UserError(f"{key} ({self.where(key)}) is unknown; nearest: methods.{near}; a variant says like: <method>")
            tree = own
            if isinstance(own, dict):
                tree = {word: value for one in reversed(line) for word, value in said[one].items() if word != "like"}
            like[name], known[name] = base, self.section(f"methods.{name}", method_section(base), tree)
        return known, like

    def _line_of(self, name: str) -> list[str]:
        """A method, what it says it is like, what that is like, and so on, as far as they are there."""
        said, line = self.value("methods"), [name]
        while isinstance(like := _like(said[line[-1]]), str) and isinstance(said.get(like), dict) and like not in line:
            line.append(like)
        return line

    def known(self) -> list[str]:
        """Every dotted key that may be given."""
        keys = [key for name, kind in SECTIONS.items() for key, _ in leaves(kind, name)] + ["method"]
        said = self.value("methods")
        for name in said if isinstance(said, dict) else ():
            base = self._line_of(name)[-1]
            if base in BASES:
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
        # a key that is misspelled is unknown, and its right name missing: the first is what to mend
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
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


def _tree(params: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        tree = YAML(typ="safe", pure=True).load(params.read_text(encoding="utf-8")) or {}
    except FileNotFoundError:
        raise UserError(f"{params} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{params} can't be read: {error}") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{params.name}{where}: {getattr(error, 'problem', None) or 'no YAML'}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{params.name}: it takes sections, not {tree!r}")
    return tree


def _like(own: Any) -> Any:
    """What a method's section says it is like."""
    return own.get("like") if isinstance(own, dict) else None


def _names_base(key: str) -> bool:
    """`methods.<variant>.like`"""
    return key.startswith("methods.") and key.endswith(".like") and key.count(".") == 2


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
