"""Code from outside: a `package.module:function` in a key, and entry points of installed packages."""

import importlib
import sys
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from lethe._util.errors import UserError


def import_reference(reference: str, key: str) -> Any:
    """Import what `package.module:function` names, with the current folder on the path.

    Args:
        reference: module and attribute, separated by a colon.
        key: the key that holds it, for errors.

    Returns:
        The attribute.

    Raises:
        UserError: it can't be imported, or the module has no such attribute.
    """
    module, _, name = reference.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        where = f"{Path.cwd()} (the current folder) and PYTHONPATH have no {error.name}" if error.name else str(error)
        raise UserError(f"{key} is {reference!r}: {type(error).__name__}: {error}; {where}") from error
    except Exception as error:  # the module is the user's own code, and may raise anything
        raise UserError(f"{key} is {reference!r}: {type(error).__name__}: {' '.join(str(error).split())}") from error
    finally:
        sys.path.pop(0)


def installed(group: str) -> dict[str, EntryPoint]:
    """Entry points of a group by name, of every installed package; nothing is imported."""
    return dict(_installed(group, tuple(sys.path)))


@lru_cache(maxsize=32)
def _installed(group: str, _path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Find them on this path: the metadata of every package are read, 40 ms where there are 250."""
    return {point.name: point for point in entry_points(group=group)}
