"""Texts for messages and files: without passwords, on one line."""

import json
import os
import re
from pathlib import Path
from typing import Any

_SECRET = r"[\w.-]*(?:password|passwd|pwd|passphrase|token|secret|signature|credential|api_?key|access_?key)[\w.-]*|sig|auth"
_VARIABLE = re.compile(r"PASSWORD|PASSWD|TOKEN|SECRET|API_?KEY|ACCESS_?KEY", re.IGNORECASE)  # in names of environment variables
_SHORTEST = 8  # characters of such a variable's value: shorter ones are words that other texts have
_whole: dict[str, str] = {}  # address without secrets -> as it was given, for this process only


def without_secrets(address: str) -> str:
    """Return scheme, host, path and fragment of an address: whoever has a signed one may read the file.

    The whole address is remembered in this process for `whole`; what is written or printed has only the result.

    >>> without_secrets("https://me:mine@host/weights.pth?token=1#sha256=ab")
    'https://host/weights.pth#sha256=ab'
    """
    if "://" not in address:
        return address
    file, mark, fragment = address.partition("#")
    scheme, rest = file.partition("?")[0].split("://", 1)
    host, slash, path = rest.partition("/")
    shown = f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
    if shown != file:
        _whole[shown] = file
    return f"{shown}{mark}{fragment}"


def whole(address: str) -> str:
    """Return an address as it was given to this process, with its secrets; itself, if it has none."""
    return _whole.get(address, address)


def clean(text: str) -> str:
    """Return a text without the users and passwords of addresses in it, without secrets in queries and connection strings, and without
    those that the environment holds."""
    text = re.sub(r"(?<=://)[^\s/]*@", "", text)
    text = re.sub(r"(?<=://)[^:/@\s]*:[^@\s]*@", "", text)  # a password with a slash in it
    text = re.sub(rf"((?:^|[?&;\s])(?:{_SECRET})=)[^&;\s#]+", r"\1***", text, flags=re.IGNORECASE)
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD"):
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and value in text and _VARIABLE.search(name) and not _is_place(value):
            text = text.replace(value, "***")
    return text


def summarize_error(error: BaseException) -> str:
    """Return the first line of an error, without passwords, in at most 200 characters."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return clean(line.partition(" with exception HTTP")[0])[:200]


def plain(value: Any) -> str:
    """Return a value as params.yaml and the command line write it."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return ",".join(map(plain, value))
    return clean(str(value))


def _is_place(value: str) -> bool:
    """Whether a variable names a folder or file, as AWS_WEB_IDENTITY_TOKEN_FILE does: messages name files below it."""
    return Path(value).is_absolute() and os.access(value, os.F_OK)
