"""Read sections from the layers: validated values, or a one-line error about the first invalid one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from lethe._util import names
from lethe._util.errors import UserError
from lethe.config.describe import accepts, show
from lethe.config.method_schema import UnreadArguments, method_section
from lethe.config.schema import SECTIONS, Space, leaves
from lethe.config.search_space import SpaceCheck
from lethe.config.section import Refusal, Section
from lethe.config.source_map import SourceMap
from lethe.recipes import registry

S = TypeVar("S", bound=Section)


@dataclass(frozen=True)
class Reader:
    """Sections of a SourceMap. All methods raise UserError with key, value, place and what is accepted."""

    sources: SourceMap

    def section(self, name: str, kind: type[S], tree: Any = None) -> S:
        """Validate the values of a section.

        Args:
            name: dotted name of the section, also for messages.
            kind: schema of the section.
            tree: values to validate; None: those at `name` in the sources.

        Returns:
            The section.

        Raises:
            UserError: a value is invalid, missing or of an unknown key: one line about the first.
        """
        try:
            return kind.model_validate(self.sources.value(name) if tree is None else tree)
        except ValidationError as error:
            raise self._refusal(name, kind, error) from None

    def check_names(self) -> None:
        """Refuse sections that do not exist."""
        sections = (*SECTIONS, "method", "methods")
        for name in self.sources.tree:
            if name not in sections:
                near = names.nearest(str(name), sections)
                raise UserError(f"{show(name)} is unknown ({self.sources.place(str(name))}); nearest: {near}")

    def methods(self) -> tuple[dict[str, Section], dict[str, str]]:
        """Arguments of each method, and by name the registered method that it is built on: itself, or the last of its `like`s."""
        tree = self.sources.value("methods")
        if not isinstance(tree, dict):
            raise self.sources.refusal("methods", "it takes a section for each method")
        sections: dict[str, Section] = {}
        bases: dict[str, str] = {}
        for name, own in tree.items():
            if ":" not in str(name) and (reason := names.objection(str(name))):  # with a colon: a function, named by its module
                raise UserError(f"methods.{name!r} ({self.sources.place(f'methods.{name}')}): {reason}")
            ancestry = self._ancestry(name)
            base, key = ancestry[-1], f"methods.{ancestry[-1]}"
            if (wrong := like_of(tree.get(base))) is not None:
                others = ", ".join(other for other in tree if other not in ancestry)
                raise UserError(f"{key}.like is {wrong!r}; it takes another method: {others}")
            if not registry.is_method(base):
                near = names.nearest(base, registry.method_names())
                place = self.sources.place(key)
                raise UserError(f"{key} ({place}) is unknown; nearest: methods.{near}; a variant says like: <method>")
            values = own
            if isinstance(own, dict):
                values = {word: value for one in reversed(ancestry) for word, value in tree.get(one, {}).items() if word != "like"}
            bases[name], sections[name] = base, self.section(f"methods.{name}", self._schema(name, base), values)
        return sections, bases

    def spaces(self, methods: Mapping[str, Section]) -> dict[str, dict[str, Space]]:
        """The section `search.spaces`, by method and argument; it is taken out of the tree."""
        trees = self.sources.value("search.spaces")
        if not isinstance(trees, dict):
            raise self.sources.refusal("search.spaces", "it takes a section for each method")
        spaces: dict[str, dict[str, Space]] = {}
        for name, own in trees.items():
            key = f"search.spaces.{name}"
            if isinstance(methods.get(name), UnreadArguments):
                continue
            if name not in methods or registry.find_method(self._ancestry(name)[-1]).chain:
                raise self.unknown(key)
            if not isinstance(own, dict):
                raise self.sources.refusal(key, "it takes a space for each argument")
            spaces[name] = {}
            for word, tree in own.items():
                if word not in type(methods[name]).model_fields:
                    raise self.unknown(f"{key}.{word}")
                if tree is not None:  # null on the command line takes an argument out of the search
                    space = self.section(f"{key}.{word}", Space, tree)
                    spaces[name][word] = SpaceCheck(self.sources, f"{key}.{word}", methods[name], space).checked(spaces[name])
        del self.sources.tree["search"]["spaces"]
        return spaces

    def known(self) -> list[str]:
        """Every dotted key that the command line takes."""
        keys = [key for name, kind in SECTIONS.items() for key, _ in leaves(kind, name)] + ["method"]
        tree = self.sources.value("methods")
        for name in tree if isinstance(tree, dict) else ():
            base = self._ancestry(name)[-1]
            if registry.is_method(base) and (schema := self._schema(name, base)) is not UnreadArguments:
                words = schema.model_fields
                keys += [f"methods.{name}.{word}" for word in words]
                if not registry.find_method(base).chain:
                    for space in (f"search.spaces.{name}.{word}" for word in words):
                        keys += [space, *(f"{space}.{part}" for part in Space.model_fields if part != "when")]
        return keys

    def unknown(self, key: str, place: str = "") -> UserError:
        """Make the error of a key that does not exist.

        Args:
            key: dotted key.
            place: layer of the key, for a key that is in no layer yet; "": the place in the sources.

        Returns:
            The error, which names the place and the nearest key that exists; the caller raises it.

        Raises:
            UserError: the key is an argument of a method whose code can't be imported.
        """
        section, _, rest = key.partition(".")
        if section == "methods" and ":" in (base := self._ancestry(rest.partition(".")[0])[-1]):
            method_section(base)
        near = names.nearest(key, self.known())
        return UserError(f"{show(key)} is unknown ({place or self.sources.place(key)}); nearest: {near}")

    def _schema(self, name: str, base: str) -> type[Section]:
        """The schema of a method's arguments. A workspace remembers the functions that its results are of, and a command that runs none
        of them does without their code: that may be on another machine, or gone, when the workspace is reported or erased."""
        try:
            return method_section(base)
        except UserError:
            if ":" not in base or not self._is_only_remembered(name):
                raise
            return UnreadArguments

    def _is_only_remembered(self, name: str) -> bool:
        """Whether a workspace's settings alone say what a method is: neither params.yaml does nor this command."""
        layers = (layer for layer in self.sources.layers if any(key.startswith(f"methods.{name}.") for key in layer.values))
        return f"methods.{name}.like" not in self.sources.base.values and not any(layer.given for layer in layers)

    def _ancestry(self, name: str) -> list[str]:
        """A method, the method that its section is `like`, and so on, as far as they exist; the last may be one without a section."""
        tree, names = self.sources.value("methods"), [name]
        while isinstance(like := like_of(tree.get(names[-1])), str) and like not in names:
            if not isinstance(tree.get(like), dict) and not registry.is_method(like):
                break
            names.append(like)
        return names

    def _refusal(self, name: str, kind: type[Section], error: ValidationError) -> UserError:
        # a misspelled key is unknown and its right name missing: the first is what to change
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        key = _key(name, kind, [str(part) for part in first["loc"]])
        if first["type"] == "extra_forbidden":
            return self.unknown(key)
        info = dict(leaves(kind, name)).get(key)
        accepted = f"it takes {accepts(info)}" if info else "it takes a section"
        if isinstance(reason := first.get("ctx", {}).get("error"), Refusal):
            accepted = str(reason)
        value = self.sources.value(key)
        if first["type"] == "missing" and value is None:
            return UserError(f"{key} is missing ({self.sources.base.name}); {accepted}")
        if value is None and isinstance(first.get("input"), str | int | float):
            value = first["input"]
        return UserError(f"{key} is {show(value)} ({self.sources.place(key)}); {accepted}")


def _key(name: str, kind: type[Section], loc: list[str]) -> str:
    """The dotted key at a location in a section; a location inside a value is the value's key."""
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
    return ".".join(path)


def like_of(section: Any) -> Any:
    """The value of `like` in a method's section; None where it has none.

    Args:
        section: of params.yaml, a variant or not.
    """
    return section.get("like") if isinstance(section, dict) else None
