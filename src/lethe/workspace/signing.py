"""Ed25519 signatures (RFC 8032) of cards and of the ledger's lines, with the key of card.signing_key.

cryptography is imported inside functions: most commands sign nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lethe._util.errors import UserError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEYS = ("ed25519", "signature")  # the public key and the signature, in hex


def signature(body: bytes, key: Path | None) -> dict[str, str]:
    """Sign some bytes.

    Args:
        body: what is signed.
        key: PEM file of an Ed25519 private key without a password; None: nothing is signed.

    Returns:
        The public key and the signature, by KEYS; {} without a key.

    Raises:
        UserError: the file holds no such key.
    """
    if key is None:
        return {}
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    private = private_key(key)
    public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    return {"ed25519": public.hex(), "signature": private.sign(body).hex()}


def fits(body: bytes, signed: Mapping[str, Any]) -> bool:
    """Return whether a signature is of these bytes, by the public key that it states.

    Args:
        body: what was signed.
        signed: has the entries that `signature` returned.

    Returns:
        True if it is; False also where an entry is missing or malformed.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(signed["ed25519"])).verify(bytes.fromhex(signed["signature"]), body)
    except (InvalidSignature, ValueError, TypeError, KeyError):
        return False
    return True


def private_key(key: Path) -> "Ed25519PrivateKey":
    """Read a private key.

    Args:
        key: PEM file of an Ed25519 private key without a password.

    Raises:
        UserError: the file holds no such key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    takes = "it takes the PEM file of an Ed25519 private key without a password: `openssl genpkey -algorithm ed25519 -out key.pem`"
    try:
        found = load_pem_private_key(key.read_bytes(), None)
    except OSError as error:
        raise UserError(f"card.signing_key is {key} ({error.strerror}); {takes}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UserError(f"card.signing_key is {key} (no such key); {takes}") from None
    if not isinstance(found, Ed25519PrivateKey):
        raise UserError(f"card.signing_key is {key} (a key of another kind); {takes}")
    return found
