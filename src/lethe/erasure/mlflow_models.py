"""MLflow: logged models, registered versions, and the artifacts of the workspace's runs."""

import tempfile
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from lethe._util.errors import RunFailed
from lethe._util.files import short
from lethe.config.loader import Config
from lethe.erasure.contents import LOOK, card_thumbnails, examine
from lethe.erasure.sought import Sought
from lethe.erasure.stores import DELETE, REWRITE, YOURS, Place, files_in, size_of
from lethe.reporting import card_erasure
from lethe.tracking.mlflow_erasure import LoggedModel, MlflowStore, RunFiles
from lethe.workspace.erased import Erasure
from lethe.workspace.layout import Layout

STORE = "mlflow"
ERASED = "erased"  # in place of a parameter


def renew_cards(config: Config, erasure: Erasure) -> None:
    """Replace the cards of a request in MLflow by those of the workspace, which say what was erased.

    Args:
        config: names the workspace.
        erasure: of the request.

    Raises:
        RunFailed: the store does not answer, or refuses.
    """
    cards = card_erasure.of_request(config, erasure)
    if not any(_run(card) for card in cards.values()):
        return
    store = MlflowStore(Layout(config.workspace).root)
    runs = {run.run_id: run for run in store.runs()}
    for path, card in cards.items():
        if run := runs.get(_run(card)):
            for file in (path, path.with_suffix(".md"), path.with_suffix(".html")):
                store.replace_artifact(run, f"card/{file.name}", file.read_text(encoding="utf-8"))


def _run(card: Mapping[str, Any]) -> str:
    """The MLflow run that a card says it belongs to; "" if it names none."""
    return str(card.get("reproduce", {}).get("about", {}).get("run", ""))


class MlflowModels:
    """The models and artifacts that the workspace's runs logged.

    Args:
        config: names the workspace.
        sought: what is looked for.
    """

    name = STORE

    def __init__(self, config: Config, sought: Sought) -> None:
        self.layout, self.sought = Layout(config.workspace), sought
        self._models: dict[str, LoggedModel] = {}
        self._files: dict[str, tuple[RunFiles, str]] = {}
        self._params: dict[str, tuple[RunFiles, str]] = {}
        self._failure = ""

    @cached_property
    def store(self) -> MlflowStore:
        """The workspace's MLflow store, opened at first use; RunFailed where it does not answer."""
        return MlflowStore(self.layout.root, self.layout.originals, self._data)

    @property
    def _data(self) -> frozenset[str]:
        """Tags of the runs whose images were those before an erasure."""
        return frozenset(short(one.data) for one in self.sought.erasures)

    def find(self) -> Iterator[Place]:
        """Models that learned the images, artifacts and parameters with their ids; one place, YOURS, where the store does not answer."""
        try:
            store = self.store
        except RunFailed as error:
            self._failure = str(error)
            yield Place(STORE, self._failure, "models and artifacts of the workspace's runs", 0, YOURS, "the same command goes on later")
            return
        for model in store.models():
            if self._learned(model):
                self._models[model.id] = model
                registered = "".join(f", registered as {name} version {version}" for name, version in model.versions)
                files = list(files_in(model.folder)) if model.folder else []
                exported = " exported as pt2" if any(path.suffix == ".pt2" for path in files) else ""
                derived = f"model {model.id} in MLflow{exported}{registered}"
                yield Place(STORE, f"models:/{model.id}", f"1 model{registered}", size_of(files), DELETE, derived=derived)
        for run in store.runs():
            yield from self._artifacts(run)
            yield from self._parameters(run)
        if store.database and not self._params and (ids := examine(store.database, self.sought).ids):
            size = store.database.stat().st_size
            yield Place(
                STORE, str(store.database), f"{ids} ids", size, YOURS, "delete the runs, tags or traces that have them, then `mlflow gc`"
            )

    def erase(self, place: Place) -> None:
        """Delete a model, replace an artifact, or overwrite a parameter."""
        model = self._models.get(place.name.removeprefix("models:/"))
        if model:
            self.store.delete_model(model)
            self.store.compact()
        elif place.name in self._files:
            run, path = self._files[place.name]
            self.store.replace_artifact(run, path, None)
        elif place.name in self._params:
            run, key = self._params[place.name]
            self.store.replace_param(run, key, ERASED)
            self.store.compact()

    def check(self) -> Iterator[Place]:
        """As `find`."""
        yield from self.find()

    def unreachable(self, listed: Collection[Path] = ()) -> Iterator[str]:
        """Rows that a tracking server only marks as deleted."""
        if not self._failure and self.store.database is None:
            yield f"rows that the MLflow server at {self.store.address} marks as deleted: `mlflow gc` on its machine removes them"

    def _learned(self, model: LoggedModel) -> bool:
        """Whether a logged model learned the images: by its run's tags, and where its files are here by its weights."""
        tags, newest = model.tags, self.sought.newest
        of_newest = tags.get("data") == short(newest.data)
        if tags.get("data") in self._data and not (of_newest and tags.get("method") == "retrained"):
            accepted = tags.get("result") == short(newest.accepted)
            return not accepted or model.name == "checkpoint"
        return any(examine(path, self.sought).models for path in (files_in(model.folder) if model.folder else ()))

    def _parameters(self, run: RunFiles) -> Iterator[Place]:
        """Parameters with a condition of data.forget.where, as `mlflow run -P` notes them, or with an id."""
        for key, value in run.params.items():
            if self.sought.ids_in(value.encode()):
                name = f"runs:/{run.run_id} parameter {key}"
                self._params[name] = run, key
                able = self.store.changes_params
                advice = "" if able else "MLflow's server changes no parameter: delete the run, then `mlflow gc` on its machine"
                yield Place(STORE, name, "what the request named", len(value), REWRITE if able else YOURS, advice)

    def _artifacts(self, run: RunFiles) -> Iterator[Place]:
        if run.folder:
            yield from self._in_folder(run, run.folder)
            return
        with tempfile.TemporaryDirectory() as temporary:
            try:
                yield from self._in_folder(run, self.store.download(run, Path(temporary)))
            except RunFailed as error:
                yield Place(STORE, f"runs:/{run.run_id}", str(error), 0, YOURS, "the same command goes on later")

    def _in_folder(self, run: RunFiles, folder: Path) -> Iterator[Place]:
        for path in files_in(folder) if folder.exists() else ():
            found = examine(path, self.sought)
            relative = path.relative_to(folder).as_posix()
            if relative.startswith("card/") and (card := path.with_suffix(".json")).exists():
                found = found.at_least(card_thumbnails(card, self.sought))
            if found:
                name = f"runs:/{run.run_id}/{relative}"
                self._files[name] = (run, relative)
                step, advice = (DELETE, "") if found.certain else (YOURS, LOOK)
                yield Place(STORE, name, str(found), path.stat().st_size, step, advice)
