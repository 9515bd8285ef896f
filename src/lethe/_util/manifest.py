"""The manifest of a workspace: hashes of the files that have no place for a hash of their own (CSV, and JSON that DVC compares by bytes).

`.lethe/manifest.json` holds the last few hashes that this program wrote for each file, newest first: DVC may restore an earlier version,
which is as it was written, too. A file that DVC brought from elsewhere is one that dvc.lock names. Files that the manifest does not name,
as those of earlier versions, can't be verified; they are read as they are. What a person replaced on purpose can be accepted; the manifest
then says who accepted it, and when."""

import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any

from filelock import FileLock

from lethe._util import integrity
from lethe._util.errors import UserError

STATE = ".lethe"  # the folder of a workspace for what neither DVC nor git keeps
NAME = PurePath(STATE, "manifest.json")
KEPT = 20  # hashes of a file
_FOLDERS = ("bank", "data", "epochs", "metrics", "originals", "recipes", "search", "report")
_SEALED = ("accepted", "cards", "logits", "models", "others", "scores")  # files in them state their own hash
_SUFFIXES = (".csv", ".json", ".txt")
_NOT_OF_STATE = ("outbox", "trials", "locks", "manifest.json")  # folders with rules of their own, and the manifest
_ABOVE = 6  # folders in which a file's workspace is looked for


def record(path: Path, written: Path) -> None:
    """Note a file that is about to appear, if it is one of a workspace's that the manifest covers.

    Args:
        path: where it appears.
        written: where its content is now.

    Raises:
        OSError: the disk refuses.
    """
    root = _workspace(path)
    if root is None:
        return
    _add(root, _name(path, root), integrity.digest_file(written))


def note_head(path: Path, head: str) -> None:
    """Note the hash of the last line of a file that only grows, once it is written.

    Args:
        path: of the file, in the workspace's own folder.
        head: of its last line.

    Raises:
        OSError: the disk refuses.
    """
    _add(path.parent, path.name, head)


def noted_heads(path: Path) -> frozenset[str]:
    """Return the last hashes that `note_head` noted: all of them are of lines of the file, unless lines were removed."""
    return frozenset(_read(path.parent).get(path.name, ()))


def _add(root: Path, name: str, hash_: str, accepted: Mapping[str, str] | None = None) -> None:
    lock = root / STATE / "locks" / "manifest.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        content = _content(root)  # not what is remembered: another machine may have written within one tick of the file's time
        files: dict[str, list[str]] = content["files"]
        if files.get(name, ("",))[0] != hash_ or accepted:
            known = (one for one in files.get(name, ()) if one != hash_)
            noted = content["accepted"] | ({name: {"sha256": hash_, **accepted}} if accepted else {})
            _write(root, files | {name: [hash_, *known][:KEPT]}, noted)


def covers(path: Path) -> bool:
    """Return whether the manifest of a workspace notes the hash of a file when it is written."""
    return _workspace(path) is not None


def state(path: Path) -> bool | None:
    """Return whether a file is as it was written; None where neither the manifest nor dvc.lock says.

    Args:
        path: of an existing file.

    Raises:
        OSError: it can't be read.
    """
    root = _workspace(path)
    known = _read(root).get(_name(path, root), ()) if root else ()
    if root is None or not known:
        return None
    if integrity.digest_file(path) in known:
        return True
    locked = [folder / "dvc.lock" for folder in (root, *root.parents[:3]) if (folder / "dvc.lock").is_file()]
    if not locked:
        return False
    text = locked[0].read_text(encoding="utf-8", errors="replace")
    if hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest() in text:
        return True
    folders = {parent.as_posix() for parent in PurePath(_name(path, locked[0].parent)).parents}
    return None if any(f"path: {folder}\n" in text for folder in folders) else False


def check(path: Path) -> None:
    """Check that a file is as it was written, as far as that is known.

    Raises:
        Damaged: it is not.
        OSError: it can't be read.
    """
    if state(path) is False:
        raise integrity.Damaged(path, "is damaged or was edited: the manifest of its workspace has other hashes")


def unreadable(path: Path, reason: str) -> UserError:
    """Return the error to raise for a file that can't be read: a damaged one if it is in a workspace, where a command makes it again.

    Args:
        path: of the file.
        reason: after its name.

    Returns:
        `integrity.Damaged` or UserError, which the caller raises; its message is the path and the reason.
    """
    root = workspace_of(path)
    own = root is not None and _name(path, root).partition("/")[0] in (STATE, *_FOLDERS, *_SEALED)
    return integrity.Damaged(path, reason) if own else UserError(f"{path} {reason}")


def accept(path: Path, by: str) -> bool:
    """Take a file as it is: note the hash of its content, and who accepted it.

    Args:
        path: of an existing file.
        by: the account that does.

    Returns:
        Whether it was another content before.

    Raises:
        UserError: the manifest does not cover it.
        OSError: the disk refuses.
    """
    root = _workspace(path)
    if root is None:
        raise UserError(f"{path} can't be accepted: it is no file whose hash the manifest of a workspace has")
    if state(path):
        return False
    _add(root, _name(path, root), integrity.digest_file(path), {"at": datetime.now(UTC).isoformat(timespec="seconds"), "by": by})
    return True


def accepted(root: Path) -> dict[str, dict[str, str]]:
    """Return, by name, what the manifest says of each file that was accepted and has that content still: sha256, at, by.

    Args:
        root: the workspace.
    """
    return _still_accepted(root, _content(root))


def settle(root: Path) -> None:
    """Keep the newest hash of each file that exists: the others are of content that is to be forgotten.

    Args:
        root: the workspace.
    """
    with FileLock(root / STATE / "locks" / "manifest.lock"):
        content = _content(root)
        if files := content["files"]:
            heads = {name: hashes for name, hashes in files.items() if name.endswith(".jsonl")}
            kept = {name: [integrity.digest_file(root / name)] for name in files if (root / name).is_file()}
            _write(root, kept | heads, _still_accepted(root, content))


def damage(root: Path) -> str:
    """Say why the manifest of a workspace can't be used; "" where it can, or does not exist."""
    path = root / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        integrity.check_json(content, str(path))
        whole = all(isinstance(hashes, list) for hashes in content["files"].values())
        noted = content.get("accepted", {}).values()
        return "" if whole and all(isinstance(one["sha256"], str) for one in noted) else "it is no manifest"
    except FileNotFoundError:
        return ""
    except (OSError, ValueError, TypeError, KeyError, AttributeError, UserError) as error:
        return str(error)


def workspace_of(path: Path) -> Path | None:
    """Return the workspace that a path is in; None if it is in none."""
    return next((folder for folder in path.absolute().parents[:_ABOVE] if (folder / STATE).is_dir()), None)


def _workspace(path: Path) -> Path | None:
    """The workspace of a file that the manifest covers."""
    root = workspace_of(path) if path.suffix in _SUFFIXES else None
    if root is None:
        return None
    name = PurePath(_name(path, root))
    state = name.parts[0] == STATE and name.parts[1] not in _NOT_OF_STATE
    return root if state or name.parts[0] in _FOLDERS else None


def _name(path: Path, root: Path) -> str:
    return path.absolute().relative_to(root.absolute()).as_posix()


def _read(root: Path) -> dict[str, list[str]]:
    """File -> hashes; {} without a manifest, and from a damaged one, which `damage` names."""
    try:
        status = (root / NAME).stat()
    except OSError:
        return {}
    return _parsed(root, status.st_mtime_ns, status.st_size, status.st_ino)


@lru_cache(maxsize=16)
def _parsed(root: Path, *_: int) -> dict[str, list[str]]:
    return dict(_content(root)["files"])


def _content(root: Path) -> dict[str, dict[str, Any]]:
    """`files`: file -> hashes; `accepted`: file -> what was noted of it. Both are empty without a manifest, and from a damaged one."""
    empty: dict[str, dict[str, Any]] = {"files": {}, "accepted": {}}
    if not (root / NAME).exists() or damage(root):
        return empty
    content: dict[str, dict[str, Any]] = json.loads((root / NAME).read_text(encoding="utf-8"))
    return empty | content


def _still_accepted(root: Path, content: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    noted: dict[str, dict[str, str]] = content["accepted"]
    return {name: one for name, one in noted.items() if (root / name).is_file() and integrity.digest_file(root / name) == one["sha256"]}


def _write(root: Path, files: Mapping[str, list[str]], accepted: Mapping[str, Mapping[str, str]]) -> None:
    path = root / NAME
    temporary = path.with_name(f".{path.name}.writing0")
    content: dict[str, Any] = {"files": dict(sorted(files.items()))} | ({"accepted": dict(sorted(accepted.items()))} if accepted else {})
    try:
        temporary.write_text(json.dumps(integrity.sealed(content), indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
