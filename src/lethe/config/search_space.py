"""The section `search.spaces`: every bound, choice and condition checked against what the method's argument takes."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from lethe._util.errors import UserError
from lethe.config.describe import accepts, show, types_of
from lethe.config.schema import Space
from lethe.config.section import Section
from lethe.config.source_map import SourceMap


@dataclass(frozen=True)
class SpaceCheck:
    """Checks the space of one argument.

    Args:
        sources: where its values came from, for messages.
        key: dotted, `search.spaces.<method>.<argument>`.
        section: the method's own values.
        space: as read.
    """

    sources: SourceMap
    key: str
    section: Section
    space: Space

    @property
    def argument(self) -> str:
        """The argument that is searched: the last part of the key."""
        return self.key.rpartition(".")[2]

    def checked(self, earlier: Mapping[str, Space]) -> Space:
        """The space with bounds, choices and conditions as the method's section has them.

        Args:
            earlier: spaces of the arguments listed before it, which `when` may name.

        Raises:
            UserError: the argument does not take a value, or range and choices do not fit together.
        """
        taken = self._range() if self.space.choices is None else self._choices(self.space.choices)
        return self.space.model_copy(update=taken | {"when": self._when(earlier)})

    def _choices(self, choices: tuple[Any, ...]) -> dict[str, Any]:
        space = self.space
        if any(value is not None for value in (space.low, space.high, space.step)) or space.log:
            raise UserError(f"{self._place()} has choices and a range; it takes one of them")
        taken = tuple(self._taken(self.argument, value, "choices") for value in choices)
        if len(set(taken)) < len(taken):
            raise self._refusal("choices", "it takes different ones")
        return {"choices": taken}

    def _range(self) -> dict[str, Any]:
        space, info = self.space, type(self.section).model_fields[self.argument]
        types = types_of(info)
        if not {int, float} & set(types):
            raise UserError(f"{self._place()} has no choices; {self.argument} takes {accepts(info)}: choices: [...]")
        if space.low is None or space.high is None:
            raise UserError(f"{self._place()} lacks {'low' if space.low is None else 'high'}; it takes low and high, or choices")
        if space.low >= space.high:
            raise self._refusal("low", f"it takes a number < high, which is {show(space.high)}")
        if space.log and space.low <= 0:
            raise self._refusal("low", "with log it takes a number > 0")
        if space.log and space.step is not None:
            raise self._refusal("step", "with log it takes none")
        if space.step is not None and (Decimal(str(space.high)) - Decimal(str(space.low))) % Decimal(str(space.step)):
            raise self._refusal("step", "it takes a number that divides high - low")
        if int in types and space.step is not None and space.step % 1:
            raise self._refusal("step", f"{self.argument} takes integers")
        return {part: self._taken(self.argument, getattr(space, part), part) for part in ("low", "high")}

    def _when(self, earlier: Mapping[str, Space]) -> dict[str, tuple[Any, ...]]:
        for argument in self.space.when:
            if argument not in earlier:
                place, known = self.sources.place(f"{self.key}.when"), ", ".join(earlier) or "none"
                raise UserError(f"{self.key}.when.{argument} ({place}): it takes an argument whose space is listed before it: {known}")
        return {name: tuple(self._taken(name, value, "when") for value in values) for name, values in self.space.when.items()}

    def _taken(self, argument: str, value: Any, part: str) -> Any:
        """The value as the method's section has it; a list of names as one text, which is what Optuna stores."""
        kind = type(self.section)
        try:
            taken = getattr(kind.model_validate(self.section.model_dump() | {argument: value}), argument)
        except ValidationError:
            accepted, place = accepts(kind.model_fields[argument]), self.sources.place(f"{self.key}.{part}")
            raise UserError(f"{self.key}.{part} has {show(value)} ({place}); {argument} takes {accepted}") from None
        return show(taken) if isinstance(taken, tuple) else taken

    def _refusal(self, part: str, accepted: str) -> UserError:
        place = self.sources.place(f"{self.key}.{part}")
        return UserError(f"{self.key}.{part} is {show(getattr(self.space, part))} ({place}); {accepted}")

    def _place(self) -> str:
        return f"{self.key} ({self.sources.place(self.key)})"
