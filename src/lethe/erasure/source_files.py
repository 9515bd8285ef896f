"""The files that the images were read from. They are changed only on request (`--source`).

A file of one image is deleted. From a table of files (data.root of the source csv, the metadata table) the rows are dropped. In a file of
many images (npz, idx) the pixels become 0: places and labels stay, because an id is a place, and all others would become other images'."""

import posixpath
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path

from lethe._util.errors import RunFailed, UserError
from lethe.config.loader import Config
from lethe.data import arrays, id_table, sources
from lethe.data.images import Images, load_images
from lethe.data.pixel_store import blocks
from lethe.erasure.contents import LOOK, examine
from lethe.erasure.sought import Sought
from lethe.erasure.stores import DELETE, REWRITE, YOURS, Place, files_in
from lethe.workspace.layout import Layout
from lethe.workspace.request import metadata_file, source_keys

STORE = "source"
ARRAYS = ("npz", "idx")
OURS = (".git", ".dvc", ".venv", "mlruns")  # folders next to a table that other stores search


class SourceFiles:
    """The files of data.source: a folder, a table and the files that it names, or arrays.

    Args:
        config: names the source and the workspace.
        sought: what is looked for.
        erases: whether the files may be changed.
    """

    name = STORE

    def __init__(self, config: Config, sought: Sought, erases: bool) -> None:
        self.root = config.path(config.data.root) if config.data.root else None
        self.config, self.sought, self.erases, self.source = config, sought, erases, config.data.source
        self.layout = Layout(config.workspace)
        metadata = metadata_file(config)
        self.table = metadata.resolve() if metadata and metadata.is_file() else None

    def find(self) -> Iterator[Place]:
        """Files of the erased images, and copies of them under any name; tables and lists of their ids; arrays that hold them."""
        if self.source in ARRAYS and self.root and self.root.exists():
            yield from self._in_arrays(self.root)
        for path in self._files():
            found = examine(path, self.sought)
            id_ = path.relative_to(self._base).as_posix()
            named = self.sought.has_id(id_)
            rows = self._rows() if path.resolve() == self.table else 0
            if rows:
                yield self._place(path, f"{rows:,} row{'s' if rows > 1 else ''}", REWRITE, "give --source to drop these rows")
            elif named or found.pixels:
                yield self._place(path, str(found) or "1 id", DELETE, "delete it, or give --source")
            elif found.certain or (found and id_ not in self._kept):
                yield Place(STORE, str(path), str(found), path.stat().st_size, YOURS, "delete it" if found.certain else LOOK)

    def erase(self, place: Place) -> None:
        """Delete a file, drop rows of the table of ids, or blank the images in an array file."""
        path = Path(place.name)
        try:
            if place.step == DELETE:
                path.unlink(missing_ok=True)
            elif path.resolve() == self.table:
                id_table.drop_rows(path, self._names_erased)
            elif self.root:
                arrays.blank(self.source, self.root, self.sought.has_id)
        except OSError as error:
            raise RunFailed(f"{place.name} can't be erased: {error.strerror}") from None

    def check(self) -> Iterator[Place]:
        """As `find`."""
        yield from self.find()

    def unreachable(self, listed: Collection[Path] = ()) -> Iterator[str]:
        """The source itself, where it is elsewhere, missing, or in a format that can't be searched."""
        if self.root is None:
            yield f"the images of data.source {self.source}, which is installed or published elsewhere; they are left out from now on"
        elif not self.root.exists():
            yield f"{self.root}, which does not exist here"
        elif self.source not in ("image_folder", "csv", *ARRAYS):
            yield f"images in files under {self.root} that only data.source {self.source} reads; they are left out from now on"

    def _place(self, path: Path, holds: str, step: str, advice: str) -> Place:
        mine = self.erases
        return Place(STORE, str(path), holds, path.stat().st_size, step if mine else YOURS, "" if mine else advice)

    @property
    def _base(self) -> Path:
        """What ids are relative to."""
        assert self.root
        return self.root.parent if self.root.is_file() else self.root

    @cached_property
    def _kept(self) -> frozenset[str]:
        """Ids of the images that stay: near copies among those were reported before the request was unlearned (data/copies.csv)."""
        path = self.layout.images
        ids = load_images(path)[0].ids if path.exists() else ()
        return frozenset(id_ for id_ in ids if not self.sought.has_id(id_))

    def _files(self) -> Iterator[Path]:
        if self.root is None or not self.root.exists():
            return
        if self.root.is_dir():
            yield from files_in(self.root)
        elif self.source == "csv":  # which may be in a folder with much else
            workspace = self.layout.root.resolve()
            for path in sorted(self._base.iterdir()):
                if path.is_file():
                    yield path
                elif path.name not in OURS and path.resolve() != workspace and not path.is_symlink():
                    yield from (file for file in files_in(path) if not file.resolve().is_relative_to(workspace))
        else:
            yield self.root
        if self.table and not self.table.is_relative_to(self._base.resolve()):
            yield self.table

    def _rows(self) -> int:
        assert self.table
        return sum(self._names_erased(name) for name, _ in id_table.read(self.table, "the table").names)

    def _names_erased(self, name: str) -> bool:
        """Whether a table's name of an image is an erased one's: its id, its path, or its path below train/."""
        path = posixpath.normpath(name.replace("\\", "/"))
        if posixpath.isabs(path) and self.root:
            path = posixpath.relpath(path, self._base.resolve().as_posix())
        return any(map(self.sought.has_id, (path, f"train/{path}")))

    def _in_arrays(self, root: Path) -> Iterator[Place]:
        try:
            images: Images = sources.read(self.source, **source_keys(self.config) | {"limit": None}, cache=self.layout.downloads)
        except UserError as error:
            yield Place(STORE, str(root), str(error), 0, YOURS, "the same command goes on later")
            return
        pixels = (one for block in blocks(images.pixels) for one in block)
        held = [id_ for id_, own in zip(images.ids, pixels, strict=True) if self.sought.has_pixels(own)]
        mine = sum(map(self.sought.has_id, held))
        path = arrays.images_file(self.source, root)
        if mine:
            yield self._place(path, f"{mine:,} image{'s' if mine > 1 else ''}", REWRITE, "give --source to set their pixels to 0")
        if others := len(held) - mine:
            advice = "give them to the next request; `--data.forget.copies include` takes copies into one"
            what = f"{others:,} exact {'copies' if others > 1 else 'copy'} under other ids"
            yield Place(STORE, str(path), what, path.stat().st_size, YOURS, advice)
