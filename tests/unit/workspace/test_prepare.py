"""Images and splits where two commands begin in one workspace."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from lethe._util.errors import UserError
from lethe.config import loader
from lethe.config.loader import Config
from lethe.data import splits
from lethe.data.images import Images, load_images, save_images
from lethe.workspace import copies, erased
from lethe.workspace import prepare as preparation
from lethe.workspace.layout import Layout
from lethe.workspace.prepare import load_existing, prepare
from lethe.workspace.pseudonyms import pseudonyms
from lethe.workspace.settings import layer, record_erasure
from lethe.workspace.workspace import Prepared


def config(folder: Path, *argv: str) -> Config:
    return loader.load(["--data.source", "digits", "--data.limit", "50", "--run.workspace", str(folder), *argv], settings=layer)


def test_splits_that_another_command_is_writing_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, writing, inside, go_on = splits.write, preparation._writing, threading.Event(), threading.Event()
    waiting = threading.Barrier(3)

    def slowly(drawn: splits.Splits, images: Images, folder: Path) -> None:
        monkeypatch.setattr(preparation, "_writing", blocked)
        folder.mkdir(parents=True)
        (folder / "retain.csv").write_text("id\n")
        inside.set()
        assert go_on.wait(60)
        write(drawn, images, folder)

    def blocked(layout: Layout) -> FileLock:
        waiting.wait(60)
        return writing(layout)

    monkeypatch.setattr(splits, "write", slowly)
    made: list[Prepared] = []

    def make(how: Callable[[Config], Prepared]) -> None:
        made.append(how(config(tmp_path)))

    first = threading.Thread(target=make, args=(prepare,))
    others = [threading.Thread(target=make, args=(how,)) for how in (prepare, load_existing)]
    first.start()
    assert inside.wait(60)
    for other in others:
        other.start()
    waiting.wait(60)
    go_on.set()
    for each in (first, *others):
        each.join(60)
    assert len(made) == 3
    assert len({each.hashes["split"] for each in made}) == 1


def test_what_another_command_wrote_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def other(count: str) -> None:
        prepare(config(tmp_path, "--data.forget.count", count))

    assert len(prepare(config(tmp_path, "--data.forget.count", "3"), accept=lambda _: other("3")).splits["forget"]) == 3
    layout = Layout(tmp_path)
    for path in layout.splits.iterdir():
        path.unlink()
    layout.splits.rmdir()
    with pytest.raises(UserError, match=r"holds other splits than data\.forget and data\.seed ask for"):
        prepare(config(tmp_path, "--data.forget.count", "3"), accept=lambda _: other("4"))
    assert splits.count(layout.splits, "forget") == 4


def test_a_split_that_is_missing_is_an_error(tmp_path: Path) -> None:
    prepare(config(tmp_path))
    (Layout(tmp_path).splits / "forget.csv").unlink()
    for how in (prepare, load_existing):
        with pytest.raises(UserError, match=r"forget\.csv does not exist"):
            how(config(tmp_path))


@pytest.mark.parametrize("damaged", ["data/train.json", "data/images.safetensors", "data/splits/forget.csv"])
def test_no_request_is_made_up_after_an_erasure(tmp_path: Path, damaged: str) -> None:
    """`prepare` makes a damaged file again, and opens no request: 10 % at random is a default, and nobody asked for it."""
    made = prepare(config(tmp_path, "--data.forget.count", "3"))
    known = pseudonyms(made.config)
    one = erased.new(made, known, method="ft", accepted="", models=(), tensors=(), source=False)
    erased.write(made.config, [one.done()])
    record_erasure(made.config, made.hashes["data"], "accepted")
    layout = Layout(tmp_path)
    layout.splits.joinpath("forget.csv").write_text("id\n")
    save_images(erased.without(made.images, made.config), layout.images, load_images(layout.images)[1])
    gone = {made.images.ids[i] for i in made.splits["forget"]}
    closed = prepare(config(tmp_path), replace=True)
    (tmp_path / damaged).unlink()
    again = prepare(config(tmp_path), replace=True)
    assert (tmp_path / damaged).exists()
    for each in (closed, again):
        assert len(each.splits["forget"]) == 0 and not gone & set(each.images.ids)
        assert sorted(each.splits["retain"]) == list(range(each.images.train))
        assert all(np.array_equal(each.splits[split], closed.splits[split]) for split in splits.SPLITS)
    with pytest.raises(UserError, match="has no deletion request"):
        load_existing(config(tmp_path))
    assert copies.counts(again)["forget_in_retain"] == {"exact": 0, "near": 0}
    assert len(prepare(config(tmp_path, "--data.forget.count", "4"), replace=True).splits["forget"]) == 4
    assert len(prepare(config(tmp_path), replace=True).splits["forget"]) == 4
