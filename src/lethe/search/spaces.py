"""Where a search looks: typed spaces (params.yaml, search.spaces) and how a trial draws from them."""

import math
from collections.abc import Mapping
from typing import Any

from lethe.config.loader import Config
from lethe.config.schema import Space
from lethe.workspace.workspace import say


def spaces(config: Config) -> tuple[dict[str, Space], dict[str, Any]]:
    """The method's space, and the configuration's own values, which are the first trial.

    A space that lacks its own value is widened, with a line; where that can't be (log, step) there is no first trial: {}."""
    own, wide, missed = values_of(config), dict(config.space), False
    for word, space in config.space.items():
        value = own[word]
        if space.choices is not None:
            if value not in space.choices:
                wide[word] = space.model_copy(update={"choices": (*space.choices, value)})
        elif space.low is not None and space.high is not None:
            steps = (value - space.low) / space.step if space.step else 0.0
            if (space.log and value <= 0) or not math.isclose(steps, round(steps), abs_tol=1e-9):
                say(f"search.spaces: {word} can't be {value} there; the configuration's own values are not tried")
                missed = True
            elif not space.low <= value <= space.high:
                wide[word] = space.model_copy(update={"low": min(space.low, value), "high": max(space.high, value)})
        if wide[word] != space:
            say(f"search.spaces: {word} is widened to its own value {value}")
    return wide, {} if missed else {word: own[word] for word in wide if holds(wide[word], own)}


def values_of(config: Config) -> dict[str, Any]:
    """The method's arguments; names as one text, as Optuna stores them."""
    section = config.methods[config.method]
    said = {word: getattr(section, word) for word in type(section).model_fields}
    return {word: ",".join(value) if isinstance(value, tuple) else value for word, value in said.items()}


def holds(space: Space, values: Mapping[str, Any]) -> bool:
    """Whether the argument is searched at these values of the others."""
    return all(values[other] in allowed for other, allowed in space.when.items())


def suggest(trial: Any, config: Config, wide: Mapping[str, Space]) -> dict[str, Any]:
    """What an Optuna trial proposes, in the order of the space, so that a condition is known when it is asked."""
    values, chosen = values_of(config), dict[str, Any]()
    for word, space in wide.items():
        if not holds(space, values | chosen):
            continue
        if space.choices is not None:
            chosen[word] = trial.suggest_categorical(word, space.choices)
        elif isinstance(values[word], int):
            chosen[word] = trial.suggest_int(word, space.low, space.high, log=space.log, step=int(space.step or 1))
        else:
            chosen[word] = trial.suggest_float(word, space.low, space.high, log=space.log, step=space.step)
    return chosen
