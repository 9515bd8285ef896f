"""What the ledger records of a request that is unlearned and measured. Nothing is recorded twice."""

import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from lethe._util.files import digest
from lethe.models import checkpoint
from lethe.workspace import ledger, scores
from lethe.workspace.plan import planned_results
from lethe.workspace.pseudonyms import Pseudonyms, pseudonyms
from lethe.workspace.workspace import Prepared

ENVIRONMENT = ("torch", "torchvision", "numpy")


def record_received(prepared: Prepared) -> None:
    """Record the request, at the time at which its images were found.

    Args:
        prepared: the images and splits.

    Raises:
        RunFailed: the ledger could not be written.
    """
    data = {"images": len(prepared.splits["forget"]), "data": prepared.hashes["data"]}
    ledger.append_once(prepared.config, "received", _request(prepared)[1], **data)


def record_unlearned(prepared: Prepared) -> None:
    """Record each result of the configured method.

    Args:
        prepared: the images and splits.

    Raises:
        RunFailed: the ledger could not be written.
    """
    hashed, request = _request(prepared)
    for run in planned_results(prepared.config):
        path = prepared.layout.weights(run)
        if not path.exists():
            continue
        about = checkpoint.metadata(path)
        ledger.append_once(
            prepared.config,
            "unlearned",
            request,
            method=str(run),
            weights=checkpoint.model_hash(path),
            original=about.get("original", ""),
            provenance=_provenance(prepared, about.get("original", "")),
            recipe=digest([about.get("recipe", "")]),
            retain=hashed.of_hash(prepared.hashes["retain"]),
            environment={"python": platform.python_version()} | {name: version(name) for name in ENVIRONMENT},
        )


def record_evaluated(prepared: Prepared, names: Iterable[str]) -> None:
    """Record the scores of results.

    Args:
        prepared: the images and splits.
        names: the runs; those without weights are left out.

    Raises:
        RunFailed: the ledger could not be written.
    """
    _, request = _request(prepared)
    for name in names:
        path, file = prepared.layout.weights(name), prepared.layout.scores(name)
        if path.exists() and file.exists():
            facts = {"method": name, "weights": checkpoint.model_hash(path), "scores": _sha256(file), "tier": scores.read(file).tier}
            ledger.append_once(prepared.config, "evaluated", request, **facts)


def _provenance(prepared: Prepared, original: str) -> str | None:
    """What the file of the original says of its origin; None if it is not the one that was unlearned from."""
    path = prepared.layout.weights("original")
    known = path.exists() and checkpoint.model_hash(path) == original
    return checkpoint.metadata(path).get("provenance", "") if known else None


def _request(prepared: Prepared) -> tuple[Pseudonyms, str]:
    hashed = pseudonyms(prepared.config)
    return hashed, hashed.of_request([prepared.images.ids[i] for i in prepared.splits["forget"]])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
