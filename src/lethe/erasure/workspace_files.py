"""The files of a workspace: images, splits, logits tables, models, cards, caches, resume states."""

import csv
import io
import re
import shlex
import shutil
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from lethe._util.checkout import root
from lethe._util.files import is_half_written, read_json, write_json, write_text
from lethe._util.integrity import digest_file
from lethe._util.redact import clean
from lethe.config.loader import Config
from lethe.data import sources
from lethe.data.images import Images, load_images, save_images
from lethe.erasure import other_workspaces
from lethe.erasure.contents import LOOK, Found, card_thumbnails, examine
from lethe.erasure.sought import Sought
from lethe.erasure.stores import DELETE, REPLACE, REWRITE, YOURS, Place, files_in, size_of
from lethe.evaluation import logits_table
from lethe.models import checkpoint
from lethe.reporting import card_erasure
from lethe.workspace import erased
from lethe.workspace.erased import Erasure
from lethe.workspace.layout import Layout
from lethe.workspace.prepare import about
from lethe.workspace.request import source_keys

STORE = "workspace"


class WorkspaceFiles:
    """The files of a workspace.

    Args:
        config: names the workspace.
        sought: what is looked for.
        erasure: the one that is planned or under way; None: only a check.
    """

    name = STORE

    def __init__(self, config: Config, sought: Sought, erasure: Erasure | None) -> None:
        self.config, self.sought, self.erasure = config, sought, erasure
        self.layout = Layout(config.workspace)

    def find(self) -> Iterator[Place]:
        """Files that hold something, and folders that only serve to resume or repeat what the request ended; the original last."""
        original = self.layout.weights("original")
        for folder in self._caches():
            files = [folder] if folder.is_file() else list(files_in(folder))
            if files:
                yield self._place(folder, f"resume states and caches, {len(files)} files", size_of(files), DELETE)
        whole = list(self._whole(self.erasure)) if self.erasure else []
        elsewhere = {str(original), *(place.name for place in whole)}  # what is deleted as a whole is not rewritten first
        for path, found in self._examined():
            if str(path) in elsewhere or self._is_cached(path):
                continue
            step = self._step(path, found)
            yield self._place(path, str(found), path.stat().st_size, step, _advice(path, found))
        yield from whole
        if self.erasure and original.exists() and checkpoint.model_hash(original) != self.erasure.accepted:
            yield self._place(original, "1 model", original.stat().st_size, REPLACE)

    def erase(self, place: Place) -> None:
        """Delete a file or folder, rewrite a file without the images, or put the accepted result in the original's place."""
        path = Path(place.name)
        if place.step == REPLACE:
            self._replace_original(path)
        elif place.step == DELETE:
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        elif place.step == REWRITE and path.exists():
            self._rewrite(path)

    def check(self) -> Iterator[Place]:
        """Every file that still holds something, whatever `find` would do with it."""
        for path, found in self._examined():
            yield self._place(path, str(found), path.stat().st_size, YOURS, _advice(path, found) or "delete it, or what it holds")

    def unreachable(self, listed: Collection[Path] = ()) -> Iterator[str]:
        """Files that keys name outside the workspace, a search's database on a server, and other workspaces that hold the same ids."""
        for key, what in (("data.forget.ids", "the list of ids"), ("pretrain.checkpoint", "the original that was given")):
            spec = self.config.settings.get(key) or self.config.given.get(key)
            if not spec or spec == "null":
                continue
            path = self.config.path(Path(re.split("[#&](?:sha256|key)=", spec)[0]))
            deleted = "://" not in spec and path.parent.is_dir() and not path.exists()
            if not (deleted or path.resolve() in listed or path.is_relative_to(self.layout.root.resolve())):
                yield f"{spec} ({key}), {what}"
        if "://" in (storage := str(self.config.search.storage or "")) and not storage.startswith("sqlite:"):
            yield f"the database of searches, {clean(storage)} (search.storage): its trials have arguments and scores, and no ids"
        yield from other_workspaces.holding(self.config, self.sought)

    def _place(self, path: Path, holds: str, size: int, step: str, advice: str = "") -> Place:
        return Place(STORE, str(path), holds, size, step, advice)

    def _caches(self) -> list[Path]:
        """What can be made again, and was made with the images or from the original."""
        layout = self.layout
        return [layout.resume, layout.others, layout.downloads, layout.other_states, layout.bank_states, layout.originals]

    def _is_cached(self, path: Path) -> bool:
        return any(path.is_relative_to(folder) for folder in self._caches())

    def _examined(self) -> Iterator[tuple[Path, Found]]:
        kept = {self.layout.secret, self.layout.erased}
        inside = (path for path in files_in(self.layout.root) if path not in kept and self._owns(path))
        for path in (*inside, *self._notebooks()):
            found = examine(path, self.sought)
            if path.suffix == ".json" and path.is_relative_to(self.layout.cards):
                found = found.at_least(card_thumbnails(path, self.sought))
            if found:
                yield path, found

    def _notebooks(self) -> Iterator[Path]:
        """Notebooks of the checkout, whose outputs may show images; those in the workspace are among its files."""
        folder, own = root() / "notebooks", self.layout.root.resolve()
        yield from (path for path in folder.rglob("*.ipynb") if path.is_file() and not path.resolve().is_relative_to(own))

    def _owns(self, path: Path) -> bool:
        """Whether this store is responsible: a workspace that is a checkout also holds the stores of DVC and MLflow, and code."""
        top = path.relative_to(self.layout.root).parts[0]
        return top not in (".git", ".dvc", ".venv", "mlruns", "mlflow.db", "mlflow.db-wal", "mlflow.db-shm")

    def _step(self, path: Path, found: Found) -> str:
        layout, suffix = self.layout, path.suffix
        if not found.certain:
            return YOURS
        made_again = path == layout.copies("csv")  # when it is needed
        if made_again or is_half_written(path) or path.is_relative_to(layout.damaged):
            return DELETE
        if found.models and any(path.is_relative_to(folder) for folder in (layout.models, layout.accepted("-").parent)):
            return DELETE
        if path.is_relative_to(layout.cards) or path in (layout.images, layout.settings, layout.given):
            return REWRITE
        if path.is_relative_to(layout.splits) and suffix == ".csv":
            return REWRITE
        tables = (layout.all_logits, layout.banks)
        return REWRITE if suffix == ".safetensors" and any(path.is_relative_to(folder) for folder in tables) else YOURS

    def _whole(self, erasure: Erasure) -> Iterator[Place]:
        """Files that are deleted whatever they hold: the accepted result under its method's name, which is the original then, and what a
        killed command left."""
        for path in (self.layout.weights(erasure.method), self.layout.logits(erasure.method)):
            if path.exists():
                yield self._place(path, "the accepted result, which is the original now", path.stat().st_size, DELETE)
        for path in files_in(self.layout.root):
            if is_half_written(path) and self._owns(path) and not self._is_cached(path):
                yield self._place(path, "left half-written by a killed command", path.stat().st_size, DELETE)

    # --- rewriting ------------------------------------------------------------------------------------------------------

    def _rewrite(self, path: Path) -> None:
        if path == self.layout.images:
            self._rewrite_images(path)
        elif path.is_relative_to(self.layout.splits):
            _drop_rows(path, self.sought)
        elif path.is_relative_to(self.layout.cards):
            _drop_thumbnails(path)
        elif path.suffix == ".safetensors":
            table = logits_table.read(path)
            kept = np.array([not self.sought.has_id(id_) for id_ in table.ids], bool)
            columns = {name: column[kept] for name, column in table.columns.items()}
            ids = tuple(id_ for id_, keep in zip(table.ids, kept, strict=True) if keep)
            arrays = {"labels": table.labels[kept], "split": table.split[kept], "logits": table.logits[kept]}
            about = dict(table.about)
            if "split" in about:  # a hash over all ids, by which an erased one could be guessed
                about["split"] = self.sought.hashed.of_hash(about["split"])
            logits_table.write(replace(table, ids=ids, columns=columns, about=about, **arrays), path)

    def _rewrite_images(self, path: Path) -> None:
        images, listing = load_images(path)
        kept = self._kept(images)
        save_images(kept, path, listing)
        for part, content in about(kept).items():
            write_json(self.layout.about(part), content)

    def _kept(self, images: Images) -> Images:
        return erased.select(images, [i for i, id_ in enumerate(images.ids) if not self.sought.has_id(id_)], self.layout.images.parent)

    def _replace_original(self, path: Path) -> None:
        """Put the accepted weights in the original's place: it no longer exists after this rename."""
        assert self.erasure
        images, _ = load_images(self.layout.images)
        accepted = self.layout.accepted(self.erasure.request[:12])
        tensors, metadata = checkpoint.load(accepted)
        known = {"kind": "original", "architecture": metadata["architecture"], "data": self._kept(images).train_hash()}
        known |= {"provenance": "unlearned", "checkpoint": accepted.name, "sha256": digest_file(accepted)}
        before = checkpoint.metadata(path)
        checkpoint.save_model(tensors, path, known | {key: before[key] for key in ("normalisation",) if key in before})


def _advice(path: Path, found: Found) -> str:
    """What to do with a file that is left to the user; "" for one that needs no other words than its step."""
    if not found.certain:
        return LOOK
    return f"`jupyter nbconvert --clear-output --inplace {shlex.quote(str(path))}`" if path.suffix == ".ipynb" else ""


def relist(config: Config) -> None:
    """Note the present state of the source in the images' file: its files were erased, which is no reason to read it again."""
    data, layout = config.data, Layout(config.path(config.run.workspace))
    images, listing = load_images(layout.images)
    now = sources.listing(data.source, **source_keys(config))
    if now != listing:
        save_images(images, layout.images, now)


def _drop_rows(path: Path, sought: Sought) -> None:
    """Leave the erased images out of a split's file, whatever its other columns are."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(row for n, row in enumerate(rows) if n == 0 or not sought.has_id(row[0]))
    write_text(path, text.getvalue())


def _drop_thumbnails(path: Path) -> None:
    """Leave the thumbnails out of a card and render its pages again, from any of its three files."""
    json_path = path.with_suffix(".json")
    content = read_json(json_path)
    content["request"]["thumbnails"] = []
    card_erasure.rewrite(json_path, content, None)  # the signature, if there was one, was of the thumbnails, too


def all_models(layout: Layout) -> Iterator[Path]:
    """Iterate over the weights of every run and resume state in a workspace."""
    for path in files_in(layout.models):
        if path.suffix == ".safetensors":
            yield path
