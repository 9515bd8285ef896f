"""Whether several workers are advised: the rule against the times of either way, and the line that says it."""

import platform
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lethe._util.files import short, write_json
from lethe.config import loader
from lethe.models import checkpoint
from lethe.pipeline import worker_advice
from lethe.pipeline.worker_advice import CROWDED, FURTHER_THREAD, START, WORTH_SAYING, faster_workers
from lethe.workspace.prepare import prepare


@given(units=st.integers(1, 100), seconds=st.floats(0.1, 1e4), threads=st.integers(1, 64), most=st.integers(0, 64))
def test_no_other_number_of_workers_takes_less_time(units: int, seconds: float, threads: int, most: int) -> None:
    workers, took = faster_workers(units, seconds, threads, most)
    alone = seconds * (1 + FURTHER_THREAD * (threads - 1)) * CROWDED
    rounds = {number: len(range(0, units, number)) for number in range(2, min(units, most) + 1)}
    least = min((START + alone * each for each in rounds.values()), default=float("inf"))
    if units * seconds - least >= WORTH_SAYING:
        assert took == pytest.approx(least) and START + alone * rounds[workers] == pytest.approx(least)
    else:
        assert (workers, took) == (1, units * seconds)


def test_small_and_single_units_stay_in_one_process() -> None:
    assert faster_workers(8, 5.0, 2, 2)[0] == 1
    assert faster_workers(1, 3600.0, 2, 2)[0] == 1
    assert faster_workers(8, 3600.0, 2, 1)[0] == 1, "there is no memory for a second"
    assert faster_workers(8, 3600.0, 2, 2)[0] == 2
    assert faster_workers(8, 3600.0, 1, 16)[0] == 8


@pytest.mark.parametrize(("machine", "given"), [(platform.node(), False), ("another", False), (platform.node(), True)])
def test_the_line_says_both_times_and_the_key(
    machine: str, given: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(worker_advice, "_advised", set())
    monkeypatch.setattr(worker_advice, "cores", lambda: 2)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = ["--data.source", "digits", "--data.limit", "4", "--model.architecture", "convnet", "--run.workspace", str(tmp_path)]
    prepared = prepare(loader.load(words))
    weights = prepared.layout.weights("retrained")
    checkpoint.save({"w": torch.ones(1)}, weights, {})
    clock = {"machine": machine, "device": "cpu", "seconds": 6000, "result": short(checkpoint.model_hash(weights))}
    write_json(prepared.layout.clock("retrained"), clock)
    if given:  # its time is that of the model whose place it took
        checkpoint.save_model({"w": torch.zeros(1)}, weights, {})
    digits = ", which changes last digits" if torch.get_num_threads() > 1 else ""
    capsys.readouterr()
    for _ in range(2):
        worker_advice.advise(prepared, "run.workers", 8, lambda: 0.5, "hybrid_4")
    said = capsys.readouterr().err
    if machine == "another" or given:
        assert "one after another" not in said
        return
    assert said.count("hybrid_4: about 400 minutes one after another, ") == 1
    assert f"by --run.workers 2 (one thread each{digits})" in said

    monkeypatch.setattr(worker_advice, "_advised", set())
    given_already = prepare(loader.load([*words, "--run.workers", "1"]))
    worker_advice.advise(given_already, "run.workers", 8, lambda: 0.5, "hybrid_4")
    assert "one after another" not in capsys.readouterr().err
