"""The repr of values that gained fields: a field added later is printed only where it differs from its default.

The repr of a recipe identifies a run. So a recipe that does not use a new field keeps the repr, and the results, that it had before."""

from dataclasses import Field, field, fields
from typing import Any


def later(default: Any) -> Any:
    """A dataclass field that was added to a class whose reprs are stored.

    Args:
        default: its value in all recipes written before.
    """
    return field(default=default, metadata={"later": True})


class Value:
    """Base of dataclasses with later fields; declare these with `@dataclass(frozen=True, repr=False)`."""

    def __repr__(self) -> str:
        shown = [one for one in fields(self) if not _omitted(self, one)]  # type: ignore[arg-type]
        return f"{type(self).__name__}({', '.join(f'{one.name}={getattr(self, one.name)!r}' for one in shown)})"


def _omitted(value: Any, one: "Field[Any]") -> bool:
    return bool(one.metadata.get("later")) and getattr(value, one.name) == one.default
