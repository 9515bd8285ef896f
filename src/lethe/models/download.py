"""Downloads of checkpoints: whole or not at all, within limits, and without their addresses' secrets in any name or message."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from lethe._util.errors import UserError
from lethe._util.files import atomic_write, digest
from lethe._util.log import log
from lethe._util.network import network
from lethe._util.redact import whole

TIMEOUT = 30.0  # seconds without an answer, or without a further part of the file
LARGEST = 20e9  # bytes


def fetched(address: str, downloads: Path) -> Path:
    """Return the file of an address, downloaded unless it is there.

    Args:
        address: without secrets; those that were given to this process with it (`redact.whole`) are sent.
        downloads: the folder that keeps downloads.

    Returns:
        A file in `downloads`, complete.

    Raises:
        UserError: it can't be downloaded.
        RunFailed: the disk refuses.
    """
    path = place(address, downloads)
    if not path.exists():
        with atomic_write(path) as temporary:
            _receive(address, temporary)
    return path


def place(address: str, downloads: Path) -> Path:
    """Return where the file of an address is kept.

    An address is remembered without its query, which may be a signature: a later command that does not have it finds the newest file of
    that address.

    Args:
        address: without secrets, as in `fetched`.
        downloads: the folder that keeps downloads.

    Returns:
        The path, whether or not the file exists.
    """
    stem, name = digest([address])[:12], urlsplit(address).path.rsplit("/", 1)[-1][-80:]
    if (full := whole(address)) != address:
        return downloads / f"{stem}-{digest([full])[:8]}-{name}"
    own = downloads / f"{stem}-{name}"
    found = [] if own.exists() else [path for path in downloads.glob(f"{stem}-*") if re.fullmatch(r"\w{12}-[0-9a-f]{8}-.*", path.name)]
    return max(found, key=lambda path: path.stat().st_mtime, default=own)


def _receive(address: str, to: Path) -> None:
    def refusal(reason: str) -> UserError:
        return UserError(f"{address} can't be downloaded: {reason}")

    with network(refusal):
        response = urlopen(Request(whole(address), headers={"User-Agent": "lethe"}), timeout=TIMEOUT)
    with response, to.open("wb") as out:
        host, other = urlsplit(address).hostname, urlsplit(response.url).hostname
        if other != host:
            log(f"{address}: {host} leads to {other}, which sends the file")
        size = 0
        while part := _part(response, refusal):
            size += len(part)
            if size > LARGEST:
                raise refusal(f"it has more than {LARGEST / 1e9:.0f} GB")
            out.write(part)
        if getattr(response, "length", 0):  # what is left of the length that was announced; a file:// has none
            raise refusal(f"the connection ended after {size:,} bytes")


def _part(response: IO[bytes], refusal: Callable[[str], UserError]) -> bytes:
    with network(refusal):
        return response.read(1 << 20)
