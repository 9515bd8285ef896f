"""Words of a command line that are not keys: they are split from the others before these are read."""

from collections.abc import Sequence

from lethe._util.errors import UserError
from lethe.config.loader import STAGE
from lethe.recipes.registry import is_method


def split_switches(words: list[str], *switches: str) -> tuple[list[str], set[str]]:
    """Split switches, which take no value, from the other words.

    Args:
        words: of the command line.
        *switches: such as --full.

    Returns:
        The other words in their order, and the switches that were given.
    """
    return [word for word in words if word not in switches], {word for word in words if word in switches}


def split_flags(words: list[str], *flags: str) -> tuple[list[str], set[str]]:
    """Split switches from the other words, also as MLflow passes them: `--yes true`.

    Args:
        words: A command line after its verb.
        flags: As typed, with their dashes.

    Returns:
        The other words, and the switches that are on.
    """
    rest, on = list[str](), set[str]()
    for n, word in enumerate(words):
        name, _, value = word.partition("=")
        if name in flags:
            following = words[n + 1] if n + 1 < len(words) else ""
            on |= {name} if (value or following).lower() != "false" else set()
        elif not (word.lower() in ("true", "false") and n and words[n - 1] in flags):
            rest.append(word)
    return rest, on


def split_option(words: list[str], option: str) -> tuple[list[str], list[str]]:
    """Split every `option value` and `option=value` from the other words.

    Args:
        words: A command line after its verb.
        option: As typed, with its dashes.

    Returns:
        The other words, and the option's values in order; "" for a value that is missing.
    """
    rest: list[str] = []
    values: list[str] = []
    following = iter(words)
    for word in following:
        name, equals, value = word.partition("=")
        if name == option:
            values.append(value if equals else next(following, ""))
        else:
            rest.append(word)
    return rest, values


def split_list(words: list[str], option: str) -> tuple[list[str], list[str]]:
    """Split an option that takes all words up to the next one from the other words.

    Args:
        words: A command line after its verb.
        option: As typed, with its dashes.

    Returns:
        The other words, and the option's values in order; "" where it has none.
    """
    rest, values, on = list[str](), list[str](), False
    for n, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == option:
            on = not equals
            following = words[n + 1] if n + 1 < len(words) else "--"
            values += [value] if equals else [""] if following.startswith("--") else []
        elif on and not word.startswith("--"):
            values.append(word)
        else:
            on = False
            rest.append(word)
    return rest, values


def split_methods(words: list[str], *, references: bool = True) -> tuple[list[str], list[str]]:
    """Split a `--method` that the configuration would refuse from the other words: several methods, all, references.

    Args:
        words: A command line after its verb.
        references: Whether a single `original` or `retrained` is one of them.

    Returns:
        The other words and the names; all words and no name where `--method` names one method, or nothing.
    """
    rest, values = split_option(words, "--method")
    names = [name.strip() for name in values[0].split(",") if name.strip()] if len(values) == 1 else []
    alone = ("all", *STAGE) if references else ("all",)
    return (rest, [*dict.fromkeys(names)]) if len(names) > 1 or (names and names[0] in alone) else (words, [])


def name_functions(words: list[str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Give methods that are named by `package.module:function` the function's name, as the configuration does with a single one.

    Args:
        words: of the command line.
        names: methods, of which several are named.

    Returns:
        The words, with the key that says which function a name means, and the names.

    Raises:
        UserError: a method of that name exists, or another of the functions has it.
    """
    words, names = [*words], [*dict.fromkeys(names)]
    short = [name.rpartition(":")[2] for name in names]
    for name, own in zip(names, short, strict=True):
        if ":" not in name:
            continue
        if is_method(own) or short.count(own) > 1:
            taken = f"a method {own} exists" if is_method(own) else f"{own} is the name of another one, too"
            other = f"--methods.<name>.like {name}, and <name> in --method"
            raise UserError(f"method is {name} (command line); {taken}, so give it another name: {other}")
        words += [f"--methods.{own}.like", name]
    return words, short
