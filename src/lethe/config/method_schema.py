"""The section `methods.<name>`, derived from the annotated arguments of the method's function."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from pydantic import ValidationInfo, create_model, field_validator
from pydantic.fields import FieldInfo

from lethe._util.errors import UserError
from lethe.config.describe import accepts, is_list_of_names, names_of
from lethe.config.section import Section
from lethe.recipes import registry


class MethodSection(Section):
    """Arguments of a method. Fields without a default are required."""

    @field_validator("*", mode="before")
    @classmethod
    def _names(cls, value: Any, info: ValidationInfo) -> Any:
        return names_of(value) if _takes_names(cls, str(info.field_name)) else value

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self).__name__, self.model_dump())  # its class is created at run time


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
        fields[word] = (parameter.annotation, ... if parameter.default is registry.REQUIRED else parameter.default)
    section = create_model(name, __base__=MethodSection, **fields)
    for word, info in section.model_fields.items():
        try:
            accepts(info)
        except KeyError:
            raise UserError(f"method {name}: argument {word} is {info.annotation}; it takes a number, text, a choice or names") from None
    return section


def arguments() -> dict[str, FieldInfo]:
    """Every argument of the built-in and registered methods by name, those that all have last."""
    sections = [method_section(name).model_fields for name in registry.registered_names()]
    found: dict[str, FieldInfo] = {}
    for section in sections:
        found |= {word: info for word, info in section.items() if word not in found}
    return dict(sorted(found.items(), key=lambda pair: all(pair[0] in section for section in sections)))
