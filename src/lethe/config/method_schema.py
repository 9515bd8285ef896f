"""The section `methods.<name>`, derived from the annotated arguments of the method's function."""

from collections.abc import Mapping
from dataclasses import fields as fields_of
from functools import cache
from typing import Annotated, Any, get_args, get_origin

from pydantic import ConfigDict, Field, ValidationInfo, create_model, field_validator
from pydantic.fields import FieldInfo

from lethe._util.errors import UserError
from lethe.config.describe import accepts, is_list_of_names, names_of
from lethe.config.section import Section
from lethe.recipes import annotation, registry


class MethodSection(Section):
    """Arguments of a method. Fields without a default are required."""

    @field_validator("*", mode="before")
    @classmethod
    def _names(cls, value: Any, info: ValidationInfo) -> Any:
        return names_of(value) if _takes_names(cls, str(info.field_name)) else value

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self).__name__, self.model_dump())  # its class is created at run time


class UnreadArguments(Section):
    """Arguments of a method of one's own that this command does not run, and whose code is gone: kept as they are, not checked."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)


@cache
def _takes_names(kind: type[Section], name: str) -> bool:
    return is_list_of_names(kind.model_fields[name])


def _restored(name: str, values: Mapping[str, Any]) -> Section:
    return method_section(name).model_validate(values)


@cache
def method_section(name: str) -> type[Section]:
    """The schema of `methods.<name>`: one field per argument of the method, with the range and meaning of its annotation.

    Args:
        name: of a registered method, or `package.module:function`.

    Raises:
        UserError: there is no such method, or an argument's type can't be written in a configuration.
    """
    fields: dict[str, Any] = {}
    for word, parameter in registry.find_method(name).parameters.items():
        fields[word] = (_checked(parameter.annotation), ... if parameter.default is registry.REQUIRED else parameter.default)
    section = create_model(name, __base__=MethodSection, **fields)
    for word, info in section.model_fields.items():
        try:
            accepts(info)
        except KeyError:
            raise UserError(f"method {name}: argument {word} is {info.annotation}; it takes a number, text, a choice or names") from None
    return section


def _checked(kind: Any) -> Any:
    """An annotated type with pydantic's `Field` in place of the recipes' own, which checks nothing."""
    if get_origin(kind) is Annotated:
        inner, *marks = get_args(kind)
        return Annotated[(_checked(inner), *map(_field, marks))]
    if get_origin(kind) is tuple:
        return tuple.__class_getitem__(tuple(part if part is Ellipsis else _checked(part) for part in get_args(kind)))
    return kind


def _field(mark: Any) -> Any:
    return _of_pydantic(mark) if isinstance(mark, annotation.Field) else mark


@cache
def _of_pydantic(mark: annotation.Field) -> Any:
    stated = {field.name: value for field in fields_of(mark) if (value := getattr(mark, field.name)) not in (None, ())}
    return Field(**(stated | ({"examples": list(mark.examples)} if mark.examples else {})))


def arguments() -> dict[str, FieldInfo]:
    """Every argument of the built-in and registered methods by name, those that all have last."""
    sections = [method_section(name).model_fields for name in registry.registered_names()]
    found: dict[str, FieldInfo] = {}
    for section in sections:
        found |= {word: info for word, info in section.items() if word not in found}
    return dict(sorted(found.items(), key=lambda pair: all(pair[0] in section for section in sections)))
