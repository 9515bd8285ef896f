"""Methods by name: built in, registered by a decorator, from an entry point, or a `package.module:function`.

A method is a function of numbers that returns a recipe. It declares each parameter once, as an annotated argument with range and meaning
(recipes/parameters.py has those that the built-in methods share):

    @register_method(source="arXiv:2302.09880, section 4")
    def joint(training: Training, *, epochs: Epochs, scale: Scale) -> Recipe:
        ...

An argument whose type is a dataclass, such as `Training`, is replaced by the dataclass's fields.
"""

import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cached_property
from typing import Any, TypeVar, get_type_hints

from lethe._util import names
from lethe._util.errors import UserError
from lethe._util.plugins import import_reference, installed

GROUP = "lethe.methods"  # of entry points: name -> function
BUILT_IN = (
    "lethe.recipes.paper_methods",
    "lethe.recipes.notebook_chain",
    "lethe.recipes.own_method",
    "lethe.recipes.fine_tuning_methods",
    "lethe.recipes.forget_loss_methods",
    "lethe.recipes.distillation_methods",
    "lethe.recipes.editing_methods",
)
REQUIRED = inspect.Parameter.empty
_SECTION = re.compile(r"\n\n(?:Args|Returns|Raises):(?:\n+[ \t]+.*)+")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Parameter:
    """An argument of a method: its annotated type, and its default or REQUIRED."""

    annotation: Any
    default: Any


@dataclass(frozen=True)
class Method:
    """A registered method.

    Args:
        name: of the method.
        function: numbers -> recipe; of a chain, numbers -> recipe by name.
        source: paper, section or equation that it comes from.
        chain: whether it is a chain of runs, each of which starts from the result before.
    """

    name: str
    function: Callable[..., Any]
    source: str = ""
    chain: bool = False

    @cached_property
    def parameters(self) -> dict[str, Parameter]:
        """The parameters by name, those of dataclasses last.

        Raises:
            UserError: the function can't be called by keyword arguments, or an argument has no annotation.
        """
        try:
            hints = get_type_hints(self.function, include_extras=True)
        except Exception as error:  # annotations are the author's own code
            raise UserError(f"method {self.name}: its annotations can't be read: {error}") from error
        own: dict[str, Parameter] = {}
        grouped: dict[str, Parameter] = {}
        for name, argument in inspect.signature(self.function).parameters.items():
            if argument.kind not in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY):
                raise UserError(f"method {self.name}: argument {argument} is not a keyword argument; a method takes only these")
            if name not in hints:
                example = "Annotated[float, Field(gt=0, description='...')]"
                raise UserError(f"method {self.name}: argument {name} has no annotation; it takes one, such as {name}: {example}")
            if is_dataclass(hints[name]):
                grouped |= _fields(hints[name], argument.default)
            else:
                own[name] = Parameter(hints[name], argument.default)
        return own | grouped

    @property
    def defaults(self) -> dict[str, Any]:
        """The values of parameters that have a default in the signature."""
        return {name: parameter.default for name, parameter in self.parameters.items() if parameter.default is not REQUIRED}

    @property
    def summary(self) -> str:
        """First line of the docstring."""
        return self.description.partition("\n")[0]

    @property
    def description(self) -> str:
        """The docstring without its sections, such as Args and Returns."""
        return _SECTION.sub("", inspect.getdoc(self.function) or "").strip()

    def build(self, arguments: Mapping[str, Any]) -> Any:
        """The recipe (of a chain, recipe by name) at these arguments.

        Args:
            arguments: a value for each of `parameters`.
        """
        hints = get_type_hints(self.function)
        values: dict[str, Any] = {}
        for name in inspect.signature(self.function).parameters:
            kind = hints[name]
            if is_dataclass(kind) and isinstance(kind, type):
                values[name] = kind(**{field.name: arguments[field.name] for field in fields(kind)})
            else:
                values[name] = arguments[name]
        made = self.function(**values)
        completing = [value.complete for value in values.values() if hasattr(value, "complete")]
        if self.chain:  # its links start from each other's results
            first = next(iter(made), None)
            return {name: _completed(recipe, completing) if name == first else recipe for name, recipe in made.items()}
        return _completed(made, completing)


def _completed(recipe: Any, completing: list[Callable[[Any], Any]]) -> Any:
    """A recipe with what the settings among the method's arguments add to it."""
    for complete in completing:
        recipe = complete(recipe)
    return recipe


def _fields(kind: Any, default: Any) -> dict[str, Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    own = {field.name: REQUIRED if field.default is MISSING else field.default for field in fields(kind)}
    return {name: Parameter(hints[name], own[name] if default is REQUIRED else getattr(default, name)) for name in own}


_REGISTERED: dict[str, Method] = {}


def register_method(*, source: str = "", name: str = "", chain: bool = False) -> Callable[[F], F]:
    """Register a function as a method: what `method` and `lethe.unlearn(method=...)` take.

    Args:
        source: paper, section or equation that the method comes from.
        name: of the method; by default the function's.
        chain: the function returns a dict of recipes, run one after another, each from the result before.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        UserError: another function is registered under this name, or the name can't be part of a file name.
    """

    def register(function: F) -> F:
        own = name or function.__name__
        if reason := names.objection(own):
            raise UserError(f"method {own!r}: {reason}")
        other = _REGISTERED.get(own)
        if other is not None and _place(other.function) != _place(function):
            raise UserError(f"method {own} is registered already, by {_place(other.function)}")
        _REGISTERED[own] = Method(own, function, source, chain)
        return function

    return register


def method_names() -> list[str]:
    """Names of all methods: built in, registered, and entry points of installed packages, which are not imported."""
    _import_built_in()
    return list(dict.fromkeys([*_REGISTERED, *installed(GROUP)]))


def registered_names(*, chains: bool = True) -> list[str]:
    """Names of the built-in methods and of those registered by a decorator; without `chains` only those that are a single run."""
    _import_built_in()
    return [name for name, method in _REGISTERED.items() if chains or not method.chain]


def is_method(name: str) -> bool:
    """Whether `find_method` knows the name: it is registered, an entry point, or has the form `package.module:function`."""
    _import_built_in()
    return name in _REGISTERED or ":" in name or name in installed(GROUP)


def find_method(name: str) -> Method:
    """The method of a name, or of a `package.module:function`.

    Raises:
        UserError: there is no such method, or its module can't be imported.
    """
    _import_built_in()
    if name in _REGISTERED:
        return _REGISTERED[name]
    points = installed(GROUP) if ":" not in name else {}
    if ":" not in name and name not in points:
        raise UserError(f"method is {name}; it takes one of {', '.join(method_names())}, or package.module:function")
    function = import_reference(points[name].value if name in points else name, "method")
    if not callable(function):
        raise UserError(f"method is {name!r}: a {type(function).__name__}, not a function")
    registered = next((each for each in _REGISTERED.values() if each.function is function), None)
    return Method(name, function, registered.source if registered else "", bool(registered and registered.chain))


def _import_built_in() -> None:
    for module in BUILT_IN:
        importlib.import_module(module)


def _place(function: Callable[..., Any]) -> str:
    return f"{function.__module__}:{function.__qualname__}"
