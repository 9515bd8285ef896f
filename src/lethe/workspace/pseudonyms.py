"""Names that lead back to nobody: HMAC-SHA256 (RFC 2104) of ids under a secret that never leaves the workspace.

Ids are `train/0`, `train/1`, ... or file names with running numbers, so a plain hash of an id is found by hashing all of them. With the
secret, whoever knows an id finds what was written about it; without the secret the hash of a known id can't be computed."""

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from lethe._util.errors import UserError
from lethe._util.files import atomic_write, digest, short
from lethe.config.loader import Config
from lethe.workspace.layout import Layout

BYTES = 32  # of the secret: as many as SHA-256 returns
KIND = "HMAC-SHA256"


@dataclass(frozen=True, repr=False)
class Pseudonyms:
    """Hash ids, and hashes from which ids could be guessed, under a secret.

    Args:
        secret: 32 random bytes.
    """

    secret: bytes

    def of_id(self, id_: str) -> str:
        """Return the pseudonym of an image: 12 hex digits."""
        return short(self._keyed("id", id_))

    def of_request(self, ids: Sequence[str]) -> str:
        """Return the pseudonym of a deletion request: 64 hex digits; it does not depend on the order of ids."""
        return self._keyed("request", *sorted(ids))

    def of_hash(self, hash_: str) -> str:
        """Return the pseudonym of a hash over ids, which whoever knows all ids but one could try out: 64 hex digits."""
        return self._keyed("hash", hash_)

    def of_condition(self, condition: str) -> str:
        """Return a condition of data.forget.where with the pseudonym of its value, which may name a person: `user=hmac:3fa2c1d0e5b7`."""
        column, _, value = condition.partition("=")
        return f"{column}=hmac:{short(self._keyed('condition', column, value))}"

    def of_pixels(self, pixels: npt.NDArray[np.uint8]) -> str:
        """Return the pseudonym of an image's pixels, uint8 [3, H, W]: 64 hex digits."""
        return self._keyed("pixels", repr(pixels.shape), pixels.tobytes())

    def hidden(self, number: np.uint64) -> str:
        """Return a number of 64 bits that only the secret shows again: 32 hex digits, other ones each time.

        A perceptual hash has to be compared bit by bit, so it can't be replaced by a pseudonym."""
        nonce = secrets.token_hex(8)
        return nonce + f"{int(number) ^ self._mask(nonce):016x}"

    def shown(self, hidden: str) -> np.uint64:
        """Return the number that `hidden` hid."""
        return np.uint64(int(hidden[16:], 16) ^ self._mask(hidden[:16]))

    def _mask(self, nonce: str) -> int:
        return int(self._keyed("mask", nonce)[:16], 16)

    @property
    def key_id(self) -> str:
        """Identify the secret without disclosing it: 12 hex digits."""
        return short(self._keyed("key"))

    def _keyed(self, *parts: str | bytes) -> str:
        return hmac.new(self.secret, bytes.fromhex(digest(parts)), "sha256").hexdigest()


def existing(config: Config) -> Pseudonyms | None:
    """Return the pseudonyms of a workspace; None if it has no secret.

    Args:
        config: names the workspace.

    Raises:
        UserError: the file can't be read, or holds something else.
    """
    layout = _layout(config)
    try:
        secret = bytes.fromhex(layout.secret.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unusable(layout.secret, getattr(error, "strerror", None) or "no hexadecimal number") from None
    if len(secret) != BYTES:
        raise _unusable(layout.secret, f"{len(secret)} bytes")
    return Pseudonyms(secret)


def pseudonyms(config: Config) -> Pseudonyms:
    """Return the pseudonyms of a workspace; its secret is created if there is none.

    Args:
        config: names the workspace.

    Raises:
        UserError: the file of the secret can't be read, or holds something else.
        RunFailed: it could not be written.
    """
    if found := existing(config):
        return found
    layout = _layout(config)
    lock = layout.lock("secret")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):  # two cards at once have one secret
        if found := existing(config):
            return found
        created = Pseudonyms(secrets.token_bytes(BYTES))
        with atomic_write(layout.secret, private=True) as temporary:
            temporary.write_text(created.secret.hex(), encoding="ascii")
        return created


def as_logged(config: Config) -> Config:
    """Return the configuration as it leaves the workspace: without the values of data.forget.where, which may name a person.

    Args:
        config: the configuration.

    Raises:
        UserError, RunFailed: as `pseudonyms`; only where there are such values.
    """
    where = config.data.forget.where
    if where is None:
        return config
    hashed = pseudonyms(config)
    forget = config.data.forget.model_copy(update={"where": tuple(map(hashed.of_condition, where))})
    return replace(config, data=config.data.model_copy(update={"forget": forget}))


def _layout(config: Config) -> Layout:
    """The workspace of the user's own checkout: the copies in which DVC runs experiments share its secret."""
    return Layout(config.path(config.run.workspace))


def _unusable(path: Path, reason: str) -> UserError:
    return UserError(f"{path} can't be read as the workspace's secret ({reason}); restore it, or remove it to have a new one")
