"""The seal of a card: a hash of its canonical JSON and, with a key, an Ed25519 signature (RFC 8032). It is checked without the workspace.

A hash shows that a card was not altered by accident; only a signature shows that it was not altered on purpose, and who made it."""

from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from lethe._util.errors import UserError
from lethe._util.files import read_json
from lethe.workspace import signing
from lethe.workspace.ledger import canonical


def sealed(content: Mapping[str, Any], key: Path | None) -> dict[str, Any]:
    """Return a card with its seal.

    Args:
        content: of the card.
        key: PEM file of an Ed25519 private key without a password; None: the card is not signed.

    Returns:
        A copy with the entry `seal`: the SHA-256 of the content, and where it is signed the public key and the signature, in hex.

    Raises:
        UserError: the file holds no such key.
    """
    body = canonical(content)
    return {**content, "seal": {"sha256": sha256(body).hexdigest()} | signing.signature(body, key)}


def verify(file: Path) -> int:
    """Check a card's seal, without its workspace, and print the result.

    Args:
        file: the card's JSON.

    Returns:
        0 if the card is as it was written, 1 otherwise.

    Raises:
        UserError: the file is no card, or has no seal.
    """
    whole, said = check(file)
    print(f"{file}: {said}")
    return 0 if whole else 1


def check(file: Path) -> tuple[bool, str]:
    """Check a card's seal, without its workspace.

    Args:
        file: the card's JSON.

    Returns:
        Whether the card is as it was written, and what was found.

    Raises:
        UserError: the file is no card, or has no seal.
    """
    content = read_json(file)
    seal = content.pop("seal", None) if isinstance(content, dict) else None
    if not isinstance(seal, dict) or not isinstance(seal.get("sha256"), str):
        raise UserError(f"{file} has no seal; it takes the JSON file of a card, which has one")
    body = canonical(content)
    if sha256(body).hexdigest() != seal["sha256"]:
        return False, "altered, its hash is not the one that it states"
    if "signature" not in seal:
        return True, "as written, not signed: whoever alters a card can also state another hash"
    if not signing.fits(body, seal):
        return False, "altered, its signature is not of this content"
    return True, f"as written, signed with the Ed25519 key {seal['ed25519']}; compare the key with the one that you were given"
