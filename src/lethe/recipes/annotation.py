"""Range and meaning of a parameter, without a library that checks them: `config.method_schema` makes the checks of it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """What a parameter takes, in `Annotated[type, Field(...)]`. The words are pydantic's, whose own `Field` methods may use as well.

    Args:
        description: its meaning.
        gt: it is greater than this.
        ge: it is this at least.
        lt: it is less than this.
        le: it is this at most.
        min_length: number of elements that it has at least.
        pattern: regular expression that a text matches.
        examples: values that it takes.
    """

    description: str | None = None
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    min_length: int | None = None
    pattern: str | None = None
    examples: tuple[str, ...] = ()
