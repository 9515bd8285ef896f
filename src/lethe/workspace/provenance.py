"""Whether a file was made from what is asked for now: the only place that compares metadata."""

from collections.abc import Mapping

from lethe.recipes import recipe

# What files of earlier versions do not say of themselves: there it is unknown, and no mismatch
LATER = ("normalisation", "sha256")
DEFAULTS = {"classes": "", "init": ""}  # by key, what a file means that does not have it
# What says how a model was made, whatever its seed and the weights that it started from
HOW = ("kind", "architecture", "provenance", "data", "split", "retain", "normalisation", "recipe", *DEFAULTS, "checkpoint", "sha256")


def mismatch(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Compare the metadata of a file with what it must say.

    Args:
        wanted: what it must say, by key. Recipes are compared as values, so that an old spelling of the same recipe is equal.
        found: what it says; other keys do not matter.

    Returns:
        The keys under which it says something else, or nothing. A key in LATER must be there to say something else.
    """
    return [
        key
        for key, value in wanted.items()
        if found.get(key, DEFAULTS.get(key)) != value
        and not (key == "recipe" and recipe.same(value, found.get(key, "")))
        and not (key in LATER and key not in found)
    ]


def unknown(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return the keys of `wanted` on which a file of an earlier version says nothing.

    Args:
        wanted: what it must say, by key.
        found: what it says.

    Returns:
        Such keys, in the order of LATER; [] if there are none.
    """
    return [key for key in LATER if key in wanted and key not in found]


def matches(wanted: Mapping[str, str], found: Mapping[str, str]) -> bool:
    """Return whether the metadata of a file says all that it must say.

    Args:
        wanted: what it must say, by key. Recipes are compared as values.
        found: what it says; other keys do not matter.

    Returns:
        True if it does, also where it lacks a key of LATER: what it does not record is no mismatch.
    """
    return not mismatch(wanted, found)


def made_otherwise(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    """Compare how two models were made, whatever their seeds and the weights that they started from.

    Args:
        one: the metadata of a model's file; what it does not record is not compared.
        other: those of another one.

    Returns:
        The keys of HOW under which the other says something else, or nothing; [] if they are results of the same settings.
    """
    return mismatch({key: text for key in HOW if (text := one.get(key, DEFAULTS.get(key))) is not None}, other)
