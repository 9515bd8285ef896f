"""Models and artifacts of a workspace's runs in MLflow: found, and deleted for good where the store can be reached that far.

A logged model that was deleted still predicts through its registered version or alias, whose files `mlflow gc` leaves (MLflow 3.17). So:
aliases and versions first, then the model, its files, and its row. mlflow is imported inside functions."""

import contextlib
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from lethe._util.errors import RunFailed
from lethe._util.redact import summarize_error
from lethe.tracking.mlflow_store import HOME, connect, workspace_hash
from lethe.tracking.outbox import destination

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_FOUND = 1000  # runs of an experiment that one call returns


@dataclass(frozen=True)
class LoggedModel:
    """A logged model of one of the workspace's runs.

    Attributes:
        id: MLflow's.
        name: "model", or "checkpoint" for an epoch that is not the last.
        uri: of its files.
        folder: of its files, where they are on this machine.
        versions: registered versions that lead to it, as (name, version).
        tags: of the run that logged it.
    """

    id: str
    name: str
    uri: str
    folder: Path | None
    versions: tuple[tuple[str, str], ...]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class RunFiles:
    """The artifacts of one of the workspace's runs.

    Attributes:
        run_id: MLflow's id of the run.
        uri: of its artifacts.
        folder: of its artifacts, where they are on this machine.
        tags: of the run.
        params: of the run.
    """

    run_id: str
    uri: str
    folder: Path | None
    tags: Mapping[str, str]
    params: Mapping[str, str]


class MlflowStore:
    """The caller's MLflow store, as far as it belongs to a workspace.

    Args:
        home: the workspace.
        originals: the folder of its further originals, each of which logs its runs as a workspace of its own.
        data: values of the tag `data`, by which such runs are found after that folder was deleted.

    Raises:
        RunFailed: the store does not answer.
    """

    def __init__(self, home: Path, originals: Path | None = None, data: Collection[str] = ()) -> None:
        self.address = str(destination()["uri"])
        self._home, self._originals, self._data = home, originals, data
        try:
            self._client: MlflowClient = connect(self.address)
            self._experiments = [each.experiment_id for each in self._client.search_experiments(view_type=_everything())]
        except Exception as error:
            raise RunFailed(f"MLflow can't be reached at {self.address}: {summarize_error(error)}") from None

    @property
    def database(self) -> Path | None:
        """The file of the store, if it is a SQLite database on this machine."""
        path = Path(unquote(self.address.removeprefix("sqlite:///")))
        return path if self.address.startswith("sqlite:///") and path.exists() else None

    def runs(self) -> Iterator[RunFiles]:
        """Iterate over the workspace's runs and those from its further originals, those that were deleted in MLflow, too."""
        for home in dict.fromkeys([workspace_hash(self._home), *self._of_originals()]):
            yield from self._with_tag(HOME, home)

    def _of_originals(self) -> Iterator[str]:
        """Hashes of the folders of further originals. A hash tells no path, but the tag `workspace` has the folder's name at its end."""
        if self._originals is None:
            return
        yield from (workspace_hash(folder) for folder in sorted(self._originals.glob("*/")))
        for data in self._data:
            for run in self._with_tag("data", data):
                seed = PurePosixPath(run.tags.get("workspace", "")).name
                if seed.isdigit() and run.tags.get(HOME) == (found := workspace_hash(self._originals / seed)):
                    yield found

    def _with_tag(self, key: str, value: str) -> Iterator[RunFiles]:
        token: str | None = None
        while token != "":
            found = self._client.search_runs(self._experiments, f"tags.`{key}` = '{value}'", _everything(), MAX_FOUND, page_token=token)
            for run in found:
                uri = str(run.info.artifact_uri)
                yield RunFiles(run.info.run_id, uri, _folder(uri), dict(run.data.tags), dict(run.data.params))
            token = found.token or ""

    def models(self) -> Iterator[LoggedModel]:
        """Iterate over the logged models of the workspace's runs."""
        runs = {run.run_id: run for run in self.runs()}
        versions = self._versions()
        for experiment in self._experiments:
            token: str | None = None
            while token != "":
                found = self._client.search_logged_models([experiment], page_token=token)
                for model in found:
                    if run := runs.get(model.source_run_id):
                        uri = str(model.artifact_location)
                        own = tuple(version for version, sources in versions.items() if model.model_id in sources)
                        yield LoggedModel(model.model_id, model.name, uri, _folder(uri), own, run.tags)
                token = found.token or ""

    def _versions(self) -> dict[tuple[str, str], str]:
        """Registered versions, with all that says which model they are."""
        try:
            found = self._client.search_model_versions()
        except Exception as error:
            raise RunFailed(f"MLflow's registry can't be read at {self.address}: {summarize_error(error)}") from None
        return {(one.name, str(one.version)): f"{one.source} {getattr(one, 'model_id', '')}" for one in found}

    def delete_model(self, model: LoggedModel) -> None:
        """Delete a logged model: its aliases and registered versions, its files, its row. Deleting it twice changes nothing.

        Raises:
            RunFailed: the store refuses; the message says what is left.
        """
        try:
            for name, version in model.versions:
                registered = self._client.get_registered_model(name)
                for alias, target in dict(registered.aliases).items():
                    if str(target) == version:
                        self._client.delete_registered_model_alias(name, alias)
                self._client.delete_model_version(name, version)
            self._client.delete_logged_model(model.id)
            _delete_files(model.uri)
            _delete_row(self._client, model.id)
        except Exception as error:
            raise RunFailed(f"MLflow does not delete the model {model.id}: {summarize_error(error)}") from None

    def replace_artifact(self, run: RunFiles, path: str, text: str | None) -> None:
        """Replace a text artifact of a run.

        Args:
            run: the run.
            path: of the artifact, relative to the run's artifacts.
            text: its new content; None: it is deleted.

        Raises:
            RunFailed: the store refuses.
        """
        try:
            _delete_files(run.uri, path)
            if text is not None:
                self._client.log_text(run.run_id, text, path)
        except Exception as error:
            raise RunFailed(f"MLflow does not replace {path} of run {run.run_id}: {summarize_error(error)}") from None

    @property
    def changes_params(self) -> bool:
        """Whether parameters can be changed: only in the database itself. MLflow's interface takes each of them once."""
        return hasattr(self._client._tracking_client.store, "ManagedSessionMaker")

    def replace_param(self, run: RunFiles, key: str, value: str) -> None:
        """Replace the value of a parameter of a run.

        Args:
            run: the run.
            key: of the parameter.
            value: the new one.

        Raises:
            RunFailed: the store refuses.
        """
        try:
            from mlflow.store.tracking.dbmodels.models import SqlParam

            store: Any = self._client._tracking_client.store
            with store.ManagedSessionMaker() as session:
                session.query(SqlParam).filter_by(run_uuid=run.run_id, key=key).update({"value": value})
        except Exception as error:
            raise RunFailed(f"MLflow does not replace the parameter {key} of run {run.run_id}: {summarize_error(error)}") from None

    def download(self, run: RunFiles, to: Path) -> Path:
        """Download the artifacts of a run, which are small: tables, pictures, cards.

        Args:
            run: the run.
            to: an existing folder.

        Returns:
            The folder with the artifacts.

        Raises:
            RunFailed: the store refuses.
        """
        try:
            return Path(self._client.download_artifacts(run.run_id, "", str(to)))
        except Exception as error:
            raise RunFailed(f"MLflow does not give the artifacts of run {run.run_id}: {summarize_error(error)}") from None

    def compact(self) -> None:
        """Rewrite the database, so that deleted rows are not in the bytes of its file.

        Whether SQLite wipes them by itself depends on how it was built."""
        if self.database:
            compact(self.database)


def compact(path: Path) -> None:
    """Rewrite a SQLite database without what was deleted from it.

    Args:
        path: of the file.

    Raises:
        RunFailed: another process writes to it.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as database:
            database.execute("pragma secure_delete = on")
            database.execute("pragma wal_checkpoint(truncate)")
            database.execute("vacuum")
            database.execute("pragma wal_checkpoint(truncate)")
    except sqlite3.Error as error:
        raise RunFailed(f"{path} can't be rewritten: {error}; the same command goes on once no other process uses it") from None


def _everything() -> int:
    from mlflow.entities import ViewType

    return int(ViewType.ALL)


def _folder(uri: str) -> Path | None:
    """The folder of an artifact location, if it is on this machine."""
    parts = urlsplit(uri)
    path = Path(unquote(parts.path) if parts.scheme == "file" else uri)
    return path if parts.scheme in ("", "file") and path.is_absolute() else None


def _delete_files(uri: str, path: str | None = None) -> None:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with contextlib.suppress(FileNotFoundError):
        get_artifact_repository(uri).delete_artifacts(path)


def _delete_row(client: "MlflowClient", model_id: str) -> None:
    """Delete the row of a logged model, which only the store itself can: over HTTP it stays, marked as deleted, until `mlflow gc`."""
    store: Any = client._tracking_client.store
    if hasattr(store, "_hard_delete_logged_model"):
        store._hard_delete_logged_model(model_id)
