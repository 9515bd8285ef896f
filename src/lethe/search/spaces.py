"""Search spaces of arguments (params.yaml, `search.spaces`) and how a trial draws from them."""

import math
from collections.abc import Mapping
from typing import Any

from lethe._util.errors import UserError
from lethe._util.log import log
from lethe.config.loader import Config
from lethe.config.schema import Space


def widened_space(config: Config) -> tuple[dict[str, Space], dict[str, Any]]:
    """Resolve the method's search space and the first trial, which is the configuration's own values.

    A space that excludes a configured value is widened, with a message. Where that is impossible (`log`, `step`), or the command gives
    the space, which then is what was asked for, there is no first trial.

    Returns:
        The space of each argument, and the values of the first trial; `{}` if it can't be expressed in the space.

    Raises:
        UserError: The method has no space.
    """
    if not config.space:
        word = next(iter(type(config.methods[config.method]).model_fields), "<argument>")
        ends = " ".join(f"--search.spaces.{config.method}.{word}.{end} <number>" for end in ("low", "high"))
        where = "command line" if "search.method" in config.given else "params.yaml"
        raise UserError(
            f"search.method is {config.method} ({where}); search.spaces has nothing of it; it takes a space of an argument, such as {ends}"
        )
    configured, wide, excluded = argument_values(config), dict(config.space), False
    for name, space in config.space.items():
        value = configured[name]
        if any(key.startswith(f"search.spaces.{config.method}.{name}.") for key in config.given) and not _includes(space, value):
            key = f"search.spaces.{config.method}.{name}"
            log(f"{key} is given and excludes the configured value {value}; the configured values are not tried")
            excluded = True
        elif space.choices is not None:
            if value not in space.choices:
                wide[name] = space.model_copy(update={"choices": (*space.choices, value)})
        elif space.low is not None and space.high is not None:
            steps = (value - space.low) / space.step if space.step else 0.0
            if (space.log and value <= 0) or not math.isclose(steps, round(steps), abs_tol=1e-9):
                log(f"search.spaces.{config.method}.{name} can't include the configured value {value}; the configured values are not tried")
                excluded = True
            elif not space.low <= value <= space.high:
                wide[name] = space.model_copy(update={"low": min(space.low, value), "high": max(space.high, value)})
        if wide[name] != space:
            log(f"search.spaces.{config.method}.{name} is widened to include the configured value {value}")
    return wide, {} if excluded else {name: configured[name] for name in wide if is_active(wide[name], configured)}


def _includes(space: Space, value: Any) -> bool:
    if space.choices is not None:
        return value in space.choices
    return space.low is None or space.high is None or space.low <= value <= space.high


def argument_values(config: Config) -> dict[str, Any]:
    """Get the method's arguments by name; a list of names is one text, the form in which Optuna stores it."""
    section = config.methods[config.method]
    values = {name: getattr(section, name) for name in type(section).model_fields}
    return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> Any:
    return ",".join(value) if isinstance(value, tuple) else value


def stated_values(config: Config) -> dict[str, Any]:
    """Get the method's arguments by name, without those at their default: one added later does not tell searches apart until it is used."""
    default = default_values(config)
    return {name: value for name, value in argument_values(config).items() if value != default[name]}


def default_values(config: Config) -> dict[str, Any]:
    """Get the defaults of the method's arguments by name, as `argument_values`; one that is required has a value equal to no other."""
    return {name: _text(info.default) for name, info in type(config.methods[config.method]).model_fields.items()}


def draws_apart(config: Config) -> list[str]:
    """Tell settings whose edits draw weights apart from the original's from the same settings of before, which drew by the run's seed.

    Args:
        config: the configuration.

    Returns:
        One more part of what identifies them; none where nothing is re-initialised.
    """
    return ["fresh_init"] if "fresh_init" in repr(config.recipe()) else []


def is_active(space: Space, values: Mapping[str, Any]) -> bool:
    """Test whether an argument is searched, given the values of the others (`when`).

    Args:
        space: The argument's space.
        values: The method's arguments by name, at least those that `when` names.

    Returns:
        True if each argument that `when` names has one of the values listed for it; True without `when`.
    """
    return all(values[other] in allowed for other, allowed in space.when.items())


def suggest(trial: Any, config: Config, spaces: Mapping[str, Space]) -> dict[str, Any]:
    """Draw a trial's arguments.

    Args:
        trial: The Optuna trial that proposes values.
        config: The search's configuration, whose values the arguments that are not searched keep.
        spaces: The space of each argument, in order: the values a `when` refers to are drawn before it is tested.

    Returns:
        The drawn values of the active arguments.
    """
    values, drawn = argument_values(config), dict[str, Any]()
    for name, space in spaces.items():
        if not is_active(space, values | drawn):
            continue
        if space.choices is not None:
            drawn[name] = trial.suggest_categorical(name, space.choices)
        elif isinstance(values[name], int):
            drawn[name] = trial.suggest_int(name, space.low, space.high, log=space.log, step=int(space.step or 1))
        else:
            drawn[name] = trial.suggest_float(name, space.low, space.high, log=space.log, step=space.step)
    return drawn
