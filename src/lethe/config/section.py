"""What every section of the configuration refuses, whatever its keys are."""

import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from lethe._util.errors import UserError
from lethe._util.files import user_path
from lethe.config.describe import types_of


class Refusal(ValueError):
    """A value that its key does not take, for the reason in the message."""


class Section(BaseModel):
    """A section of params.yaml: frozen; unknown keys, missing keys and NaN are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false as numbers, texts that no file takes, and paths that can't exist. The message goes into the error's."""
        kinds = _kinds(cls, str(info.field_name))
        if isinstance(value, bool) and bool not in kinds:
            raise ValueError
        if isinstance(value, str):
            if Path not in kinds:
                value = value.removesuffix("\n")  # at the end of YAML's blocks (| and >)
            if not value.isprintable() and any(unicodedata.category(one) in ("Cc", "Cs") for one in value if one != "\t"):
                raise Refusal("it takes text without control characters, in UTF-8")
            if Path in kinds:
                if not value:
                    raise ValueError
                try:
                    user_path(value)
                except UserError as error:
                    raise Refusal(str(error)) from None
        return value


@cache
def _kinds(kind: type[BaseModel], name: str) -> list[Any]:
    """The types of a field; known by name, as every value of every space is checked."""
    return types_of(kind.model_fields[name])
