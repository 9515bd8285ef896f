"""The recipe of a method's name by the defaults that come with the program, for a network of the caller's own."""

import os
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from lethe._util.checkout import default_params
from lethe._util.errors import UserError
from lethe._util.names import nearest
from lethe.config import loader
from lethe.config.describe import accepts
from lethe.config.method_schema import method_section
from lethe.recipes.recipe import Recipe
from lethe.recipes.registry import find_method, is_method, method_names

if TYPE_CHECKING:
    from torch.nn import Module

# Arguments that name modules -> what they are by default where the network has no modules of the default's names
ROLES = {"trains": ("last_block", "head"), "unfreeze": ("early",)}


def default_recipe(name: str, arguments: Mapping[str, Any], model: "Module") -> Recipe:
    """The method's recipe by its defaults and the given arguments. Defaults that name layers of another network are replaced by roles.

    Args:
        name: of a method, or `package.module:function`.
        arguments: of the method, in place of its defaults.
        model: the network that is to be trained.

    Returns:
        The recipe.

    Raises:
        UserError: there is no such method, it is a chain, or an argument is not what it takes.
    """
    config = _defaults()
    base = config.like.get(name, name)
    if not is_method(base):
        known = [*dict.fromkeys([*config.methods, *method_names()])]
        raise UserError(f"method is {name!r}; nearest: {nearest(name, known)}; it takes {', '.join(known)}, or a recipe")
    method, section = find_method(base), method_section(base)
    if method.chain:
        raise UserError(f"method is {name!r}, a chain of runs; it takes one method, or a recipe")
    for word in arguments:
        if word not in section.model_fields:
            takes = ", ".join(section.model_fields)
            raise UserError(f"{name} has no argument {word}; nearest: {nearest(word, section.model_fields)}; it takes {takes}")
    defaults = dict(config.methods[name]) if name in config.methods else method.defaults
    roles = {word: names for word, names in ROLES.items() if word in defaults and word not in arguments}
    fitting = {word: names for word, names in roles.items() if not _has_modules(model, defaults[word])}
    try:
        recipe: Recipe = method.build(dict(section.model_validate({**defaults, **fitting, **arguments})))
    except ValidationError as error:
        word = str(error.errors()[0]["loc"][0])
        what = f"is {arguments[word]!r}" if word in arguments else "is missing"
        raise UserError(f"{word} {what}; it takes {accepts(section.model_fields[word])}") from None
    return recipe


@cache
def _defaults() -> loader.Config:
    """The configuration that comes with the program, not the caller's folder's, which may be another project's."""
    return loader.load(["--run.workspace", os.devnull], params=default_params())


def _has_modules(model: "Module", names: Sequence[str]) -> bool:
    """Whether the network has a module or parameter of each of the names, whatever they stand for in others."""
    known = {name for name, _ in (*model.named_modules(), *model.named_parameters())} | {"all"}
    return known.issuperset(names)
