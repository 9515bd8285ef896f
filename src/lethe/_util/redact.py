"""Texts for messages and files: without passwords, on one line."""

import json
import os
import re
from typing import Any


def clean(text: str) -> str:
    """Return a text without the users and passwords of addresses in it, and without the secrets of MLflow and PostgreSQL."""
    text = re.sub(r"(?<=://)[^\s/]*@", "", text)
    text = re.sub(r"(?<=://)[^:/@\s]*:[^@\s]*@", "", text)  # a password with a slash in it
    text = re.sub(r"([?&]password=)[^&\s]*", r"\1***", text)
    for name in ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "PGPASSWORD"):
        if secret := os.environ.get(name):
            text = text.replace(secret, "***")
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
