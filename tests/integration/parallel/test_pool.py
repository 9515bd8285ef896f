"""Units of work, here and in processes: what is lost when one fails, dies, or is stopped."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lethe._util.errors import RunFailed, UserError
from lethe.parallel import processes
from lethe.parallel.pool import map_units
from support import units
from support.project import NET, ROOT, alive, clean, until


def items(folder: Path, *numbers: int) -> list[tuple[str, int]]:
    return [(str(folder), n) for n in numbers]


def test_one_worker_is_a_loop_in_this_process(tmp_path: Path) -> None:
    found = list(map_units(units.square, items(tmp_path, 3, 1, 2)))
    assert found == [(item, (item[1] ** 2, os.getpid())) for item in items(tmp_path, 3, 1, 2)]
    assert not list(map_units(units.square, [], workers=4))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_unit_that_fails_does_not_stop_the_others(workers: int, tmp_path: Path) -> None:
    found: list[Any] = []
    with pytest.raises(UserError, match=r"^\(.*, -1\): -1 is negative$"):
        found.extend(map_units(units.square, items(tmp_path, -1, 2, 3, 4), workers=workers))
    assert sorted(item[1] for item, _ in found) == [2, 3, 4]
    assert len({pid for _, (_, pid) in found}) <= workers


def test_a_process_that_dies_costs_its_own_unit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    found = dict(map_units(units.square, items(tmp_path, 1, 13, 2, 3, 4), workers=2))
    assert {item[1]: result for item, (result, _) in found.items()} == {1: 1, 13: 169, 2: 4, 3: 9, 4: 16}
    assert os.getpid() not in {pid for _, pid in found.values()}
    assert "13) died by SIGKILL; it is tried again" in caplog.text


def test_a_unit_whose_process_always_dies_is_given_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RunFailed, match=r"666\): its process died 3 times, the last time by SIGKILL"):
        list(map_units(units.square, items(tmp_path, 666, 2, 3), workers=2))
    assert {path.name for path in tmp_path.iterdir()} == {"666.tried", "2.tried", "2", "3.tried", "3"}


def test_each_has_its_share_of_threads_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in processes._environments(3, 0.5)] == ["4", "7", "4"]
    assert {seen for _, seen in map_units(units.surroundings, range(3), workers=2, gpus=0)} == {("3", "4,7")}
    assert os.environ["OMP_NUM_THREADS"] == "6"
    assert "MKL_NUM_THREADS" not in os.environ


def test_nothing_of_the_current_folder_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may hold anybody's files."""
    for name in ("multiprocessing", "pickle", "torch"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    assert {item[1]: result for item, (result, _) in map_units(units.square, items(tmp_path, 2, 3), workers=2)} == {2: 4, 3: 9}
    assert "PYTHONSAFEPATH" not in os.environ


def test_what_cant_be_sent_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match=r"^1: its result can't be sent: "):
        list(map_units(units.odd, [0, 1], workers=2))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_who_stops_it_stops_all(number: int, tmp_path: Path) -> None:
    """Ctrl-C, or the end of the parent without a word: every unit is told and ends by itself."""
    environment = clean() | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}"}
    began = [tmp_path / f"{n}.began" for n in range(2)]
    with subprocess.Popen([sys.executable, str(ROOT / "tests" / "support" / "units.py"), str(tmp_path)], env=environment) as parent:
        until(lambda: all(path.exists() and path.read_text() for path in began))
        parent.send_signal(number)
        parent.wait(NET)
    until(lambda: all((tmp_path / f"{n}.stopped").exists() for n in range(2)))
    until(lambda: not any(alive(int(path.read_text())) for path in began))


def test_a_reader_that_stops_early_stops_the_rest(tmp_path: Path) -> None:
    found: Any = map_units(units.square, items(tmp_path, *range(1, 200)), workers=2)
    next(found)
    found.close()
    assert len(list(tmp_path.glob("*.tried"))) < 199
