"""Whether a file was made from what is asked for now: its metadata against what it must say."""

from collections.abc import Mapping

from lethe.recipes import recipe


def mismatch(wanted: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """The keys of `wanted` under which a file's metadata says something else; recipes are compared as values."""
    return [
        key for key, value in wanted.items() if found.get(key) != value and not (key == "recipe" and recipe.same(value, found.get(key, "")))
    ]


def matches(wanted: Mapping[str, str], found: Mapping[str, str]) -> bool:
    return not mismatch(wanted, found)


def _agree(key: str, wanted: str, found: str | None) -> bool:
    return wanted == found or (key == "recipe" and found is not None and recipe.same(wanted, found))
