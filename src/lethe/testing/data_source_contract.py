"""What every data source promises."""

from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from lethe.data import sources, splits
from lethe.data.images import Images, load_images, save_images
from lethe.data.request import DeletionRequest
from lethe.data.sources import SourceOptions


class DataSourceContract:
    """Tests that hold for every data source: subclass it and name the source, as `data.source` takes it.

    class TestArrays(lethe.testing.DataSourceContract):
        source = "own_source:read_arrays"

        @pytest.fixture
        def options(self, tmp_path):
            ...  # write a few files
            return lethe.SourceOptions(root=tmp_path, image_size=32)
    """

    source: ClassVar[str] = ""

    @pytest.fixture
    def options(self, tmp_path: Path) -> SourceOptions:
        """What the source is asked for; `limit` is set by the tests. Override it where the source needs a root or another size."""
        return SourceOptions(cache=tmp_path)

    @pytest.fixture
    def images(self, options: SourceOptions) -> Images:
        """All images of the source."""
        return self.read(options)

    def read(self, options: SourceOptions) -> Images:
        """All images of the source at these options."""
        return sources.read(self.source, root=options.root, image_size=options.image_size, limit=options.limit, cache=options.cache)

    def listing(self, options: SourceOptions) -> str:
        """A hash that changes when the source would return other images."""
        return sources.listing(self.source, root=options.root, image_size=options.image_size, limit=options.limit)

    def test_arrays_labels_ids_and_classes_fit_together(self, images: Images, options: SourceOptions) -> None:
        """Square contiguous images of the size asked for, every class among the train images, no empty id."""
        images.check(f"data.source {self.source}")
        assert images.pixels.flags.c_contiguous
        assert images.pixels.shape[2:] == (options.image_size, options.image_size)
        assert set(images.labels[: images.train]) == set(range(len(images.classes)))
        assert all(id_.encode() for id_ in images.ids)

    def test_it_gives_the_same_again(self, images: Images, options: SourceOptions) -> None:
        """Two readings agree in pixels, labels and ids."""
        again = self.read(options)
        assert again.train_hash() == images.train_hash()
        assert again.ids == images.ids and (again.pixels == images.pixels).all() and (again.labels == images.labels).all()

    def test_its_listing_is_the_same_again_and_follows_the_limit(self, options: SourceOptions) -> None:
        """Another limit gives another listing."""
        assert self.listing(options) == self.listing(options) != self.listing(replace(options, limit=1))

    def test_limit_keeps_the_first_train_images_of_each_class_and_all_held_out_ones(self, images: Images, options: SourceOptions) -> None:
        """In the order of the whole."""
        few = self.read(replace(options, limit=2))
        of_class = [np.flatnonzero(images.labels[: images.train] == label)[:2] for label in range(len(images.classes))]
        kept = np.sort(np.concatenate(of_class))
        assert few.ids == (*(images.ids[i] for i in kept), *images.ids[images.train :])
        assert (few.classes, few.held_out) == (images.classes, images.held_out)
        assert (few.pixels[: few.train] == images.pixels[kept]).all() and (few.labels[: few.train] == images.labels[kept]).all()

    def test_its_counts_are_those_of_its_images(self, images: Images, options: SourceOptions) -> None:
        """`class_counts` agrees with the train labels, with and without a limit."""
        for limit in (None, 2):
            of = {"root": options.root, "image_size": options.image_size, "cache": options.cache}
            counts = sources.class_counts(self.source, limit=limit, **of)  # type: ignore[arg-type]
            numbers = np.bincount(images.labels[: images.train], minlength=len(images.classes))
            assert list(counts.values()) == [int(number) if limit is None else min(int(number), limit) for number in numbers]

    def test_its_images_come_back_from_a_file(self, images: Images, tmp_path: Path) -> None:
        """The images file holds what was read."""
        save_images(images, tmp_path / "images.safetensors", "listing")
        back, listing = load_images(tmp_path / "images.safetensors")
        assert listing == "listing" and back.train_hash() == images.train_hash() and back.ids == images.ids

    def test_it_can_be_divided_and_its_division_comes_back(self, images: Images, tmp_path: Path) -> None:
        """The ids name images well enough to write the splits and read them."""
        drawn = splits.draw(images, DeletionRequest(count=1), 0)
        splits.write(drawn, images, tmp_path)
        assert splits.split_hash(splits.read(tmp_path, images), images) == splits.split_hash(drawn, images)
