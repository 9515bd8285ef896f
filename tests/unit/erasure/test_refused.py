"""A store that refuses, as a server does without the permission: the rest is erased all the same. Records that are not sent."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from filelock import FileLock

from lethe._util.errors import RunFailed
from lethe.config.loader import load
from lethe.erasure.erase import carry_out, erase
from lethe.erasure.stores import DELETE, Place
from lethe.workspace.layout import Layout


@dataclass
class Refusing:
    """A store of two places, of which the first can't be erased."""

    name: str
    erased: list[str] = field(default_factory=list)

    def places(self) -> "list[tuple[Refusing, Place]]":
        return [(self, Place(self.name, place, "1 model", 0, DELETE)) for place in ("first", "second")]

    def find(self) -> Iterator[Place]:
        yield from (place for _, place in self.places() if place.name not in self.erased)

    def erase(self, place: Place) -> None:
        if place.name == "first":
            raise RunFailed("Permission denied")
        self.erased.append(place.name)

    def check(self) -> Iterator[Place]:
        yield from self.find()

    def unreachable(self, listed: Collection[Path] = ()) -> Iterator[str]:
        return iter(())


def test_the_rest_is_erased(capsys: pytest.CaptureFixture[str]) -> None:
    store = Refusing("mlflow")
    carry_out(store.places())
    assert "not done: Permission denied" in capsys.readouterr().err
    assert [place.name for place in store.check()] == ["first"]


def test_a_workspace_is_not_left_half_erased() -> None:
    store = Refusing("workspace")
    with pytest.raises(RunFailed, match="Permission denied"):
        carry_out(store.places())
    assert store.erased == []


def test_records_that_are_not_sent_are_said_with_what_sends_them_and_those_of_a_running_command_are_its_own(tmp_path: Path) -> None:
    config = load(["--run.workspace", str(tmp_path / "there")])
    outbox = Layout(config.workspace).outbox / "a.1"
    outbox.mkdir(parents=True)
    with pytest.raises(RunFailed, match=rf"; `python src/send.py --run.workspace {config.workspace.resolve()}` sends them$"):
        erase(config)
    with FileLock(f"{outbox}.lock"), pytest.raises(RunFailed, match=f"^another command is running in {config.workspace}; "):
        erase(config)
