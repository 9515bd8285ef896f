"""`verify --accept`: take files of a workspace as they are, which a person replaced on purpose."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lethe._util import integrity, manifest
from lethe._util.errors import UserError
from lethe._util.files import unwritable
from lethe._util.log import log
from lethe.config.loader import Config
from lethe.pipeline.verify import UNREADABLE, reader
from lethe.workspace import ledger, repair
from lethe.workspace.layout import Layout


def accept(config: Config, files: Sequence[str]) -> None:
    """Note the present content of files in the manifest of their workspace, with the account and the time. All of them, or none.

    Args:
        config: names the workspace.
        files: paths, from the workspace's folder or from the current one.

    Raises:
        UserError: one is no file of the workspace, has a hash of its own, is the ledger or the manifest, or can't be read as what it is.
        RunFailed: the disk refuses.
    """
    layout = Layout(config.path(config.run.workspace).absolute())
    if why := manifest.damage(layout.root):
        raise UserError(f"{layout.manifest} is damaged ({why}): {repair.remedy(layout.manifest, layout.root)}")
    paths = [_checked(layout, name) for name in files]
    by = ledger.account()
    for path in paths:
        try:
            changed = manifest.accept(path, by)
        except OSError as error:
            raise unwritable(layout.manifest, error) from error
        log(f"{path}: {f'accepted as it is, by {by}' if changed else 'it is as it was written'}")


def _checked(layout: Layout, name: str) -> Path:
    """The path of a file that can be accepted."""
    found = [path for path in (layout.root / name, Path(name).absolute()) if path.is_file()]
    if not name or not found:
        raise UserError(f"accept is {name!r}: there is no such file under {layout.root}; it takes the files that `verify` names")
    path = found[0]
    if path.resolve() != path.parent.resolve() / path.name or not path.resolve().is_relative_to(layout.root.resolve()):
        raise UserError(f"accept is {name}: it is a link, or not under {layout.root}")
    path = layout.root / path.resolve().relative_to(layout.root.resolve())
    if path in (layout.ledger, layout.manifest):
        raise UserError(f"{path} can't be accepted: {repair.remedy(path, layout.root)}")
    if manifest.state(path) is None and not manifest.covers(path):
        raise UserError(f"{path} can't be accepted: it is checked by a hash of its own, or by none; {repair.remedy(path, layout.root)}")
    with tempfile.TemporaryDirectory() as folder:  # where no manifest is asked
        copy = Path(shutil.copy(path, folder))
        try:
            if read := reader(layout, path):
                read(copy)
        except (UserError, *UNREADABLE) as error:
            reason = error.reason if isinstance(error, integrity.Damaged) else str(error).removeprefix(f"{copy} ")
            raise UserError(f"{path} can't be accepted: it {reason}; {repair.remedy(path, layout.root)}") from None
    return path
