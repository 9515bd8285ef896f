"""The leaderboard's tables: which runs have rows, and whose time and work these show."""

import csv
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import torch
from torch.nn import Module

from lethe._util.files import short, write_json
from lethe.config import loader
from lethe.engine import work
from lethe.evaluation.score import MeasureResult, Score, SeedScore
from lethe.evaluation.uncertainty import Estimate
from lethe.models import checkpoint
from lethe.pipeline import cost, leaderboard_tables, run_logging
from lethe.tracking.run_log import RunLog
from lethe.workspace import scores, settings
from lethe.workspace.layout import Layout
from lethe.workspace.prepare import prepare, remember
from lethe.workspace.run_names import RunId

FT = RunId("ft_at_20")
ROWS = ["--methods.ft_at_20.like", "ft", "--methods.ft_at_20.retain_epochs", "2"]
DIGITS = ["--data.source", "digits", "--data.limit", "20", "--model.architecture", "convnet"]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """A workspace that has images and splits and remembers what the row `FT` is."""
    prepared = prepare(loader.load([*DIGITS, *ROWS, "--run.workspace", str(tmp_path)], settings=settings.layer))
    remember(prepared, "methods.ft_at_20.")
    return prepared.layout


def weights(layout: Layout, run: RunId | str, number: float, **metadata: str) -> str:
    """Write weights; the short hash of them."""
    checkpoint.save_model({"w": torch.tensor([number])}, layout.weights(run), metadata)
    return short(checkpoint.model_hash(layout.weights(run)))


def scored(layout: Layout, run: RunId, model: str, test: float, seeds: Mapping[int, str] | None = None) -> None:
    """Write a score of these weights; `seeds`: seed -> weights, of a mean."""
    accuracy = dict.fromkeys(leaderboard_tables.ACCURACIES, test)
    tables = {"model": model} | ({"seeds": {str(seed): {"model": own} for seed, own in seeds.items()}} if seeds else {})
    gap = {"avg_gap.svc": MeasureResult(Estimate(1.0))}
    score = Score(accuracy, measures=gap, tables=tables, seeds={seed: SeedScore(accuracy) for seed in seeds or ()})
    write_json(layout.scores(run), score.to_json())


def averaged(layout: Layout, of: Mapping[int, str], test: float) -> None:
    """Write the mean of seeds, whose weights are those of the first."""
    weights(layout, FT, checkpoint.load(layout.weights(FT.with_seed(0)))[0]["w"].item(), seed="0")
    scored(layout, FT, of[0], test, of)


def clocked(layout: Layout, run: RunId | str, of: str, seconds: float, flops: float) -> None:
    write_json(layout.clock(run), {"result": of, "seconds": seconds, "flops": flops})


def tables(layout: Layout) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """What `write` writes: leaderboard.csv and summary.csv."""
    leaderboard_tables.write(layout.root)
    found = []
    for name in ("leaderboard.csv", "summary.csv"):
        with (leaderboard_tables.folder(layout.root) / name).open() as file:
            found.append([*csv.DictReader(file)])
    return found[0], found[1]


def of_seeds(layout: Layout, seeds: range, first: float) -> dict[int, str]:
    """Weights and scores of seeds, as those of one mean have them: seed -> weights."""
    made = {seed: weights(layout, FT.with_seed(seed), first + seed, seed=str(seed)) for seed in seeds}
    for seed, model in made.items():
        scored(layout, FT.with_seed(seed), model, first + seed)
    return made


def test_a_run_by_itself_takes_the_rows_of_the_seeds_before_it(layout: Layout) -> None:
    """Which stay on disk, with their scores: they were made by other settings."""
    of_seeds(layout, range(3), 70.0)
    scored(layout, FT, weights(layout, FT, 5.0, seed="0"), 90.0)
    (row,), (mean,) = tables(layout)
    assert (row["seed"], row["test"]) == ("0", "90")
    assert (mean["seeds"], mean["test"]) == ("1", "90")


def test_fewer_seeds_take_the_rows_of_more(layout: Layout) -> None:
    of_seeds(layout, range(5), 70.0)
    of = of_seeds(layout, range(3), 80.0)
    averaged(layout, of, 81.0)
    rows, (mean,) = tables(layout)
    assert [(row["seed"], row["test"]) for row in rows] == [("0", "80"), ("1", "81"), ("2", "82")]
    assert (mean["seeds"], mean["test"]) == ("3", "81")


def test_a_mean_of_other_runs_than_exist_now_has_no_row(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """As when the command that makes its seeds again was stopped: some are of the old settings, some of the new ones."""
    of = of_seeds(layout, range(3), 70.0)
    averaged(layout, of, 71.0)
    assert len(tables(layout)[0]) == 3
    of_seeds(layout, range(1), 80.0)
    capsys.readouterr()
    assert tables(layout) == tables(layout) == ([], [])
    said = capsys.readouterr().err
    assert said.count("ft_at_20: no row: ") == 1
    assert "--method ft_at_20" in said and "--run.seeds 3" in said


def test_a_score_of_an_earlier_version_that_does_not_name_its_seeds_weights_has_rows(layout: Layout) -> None:
    of = of_seeds(layout, range(2), 70.0)
    averaged(layout, of, 70.5)
    old = scores.read(layout.scores(FT))
    assert old.seeds and old.tables["seeds"]
    write_json(layout.scores(FT), replace(old, tables={"model": of[0]}).to_json())
    rows, (mean,) = tables(layout)
    assert [row["seed"] for row in rows] == ["0", "1"] and mean["seeds"] == "2"


def test_a_run_whose_weights_are_gone_has_no_row_and_the_others_stay(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """`erase` keeps scores and deletes models; the seed of a run by itself is in its weights alone."""
    of, other = of_seeds(layout, range(2), 70.0), RunId("ft_at_10")
    averaged(layout, of, 70.5)
    scored(layout, other, weights(layout, other, 1.0, seed="0"), 60.0)
    assert [row["share"] for row in tables(layout)[0]] == ["0.1", "0.2", "0.2"]
    for path in layout.models.iterdir():
        path.unlink()
    capsys.readouterr()
    rows, means = tables(layout)
    assert [row["seed"] for row in rows] == ["0", "1"] and [row["share"] for row in means] == ["0.2"]
    tables(layout)
    assert capsys.readouterr().err.count("ft_at_10: no row: ") == 1


@pytest.mark.parametrize("key", ["data", "split", "original"])
def test_a_run_of_another_request_or_original_has_no_row(key: str, layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    """Its share and its distances would be next to a model that it has nothing to do with. The others stay, also of earlier versions."""
    config = loader.load(["--run.workspace", str(layout.root)], settings=settings.layer)
    weights(layout, "original", 9.0)
    hashes = {**prepare(config).hashes, "original": checkpoint.model_hash(layout.weights("original"))}
    own = {"ft_at_10": hashes, "ft_at_20": {}, "ft_at_30": hashes | {key: "0" * 64}}
    for name, about in own.items():
        scored(layout, RunId(name), weights(layout, name, 1.0, seed="0", **about), 80.0)
    rows, means = tables(layout)
    assert [row["share"] for row in rows] == [row["share"] for row in means] == ["0.1", "0.2"]
    (said,) = (line for line in capsys.readouterr().err.splitlines() if "no row" in line)
    assert said.startswith("ft_at_30: no row: it was made ") and "--method ft_at_30" in said


def test_a_score_next_to_another_original_has_no_row(layout: Layout) -> None:
    """Its weights are erased, with the request that they were for; the request after it has an original of its own."""
    of = of_seeds(layout, range(2), 70.0)
    averaged(layout, of, 71.0)
    old = scores.read(layout.scores(FT))
    write_json(layout.scores(FT), replace(old, tables={**old.tables, "original": "f" * 12}).to_json())
    for path in layout.models.iterdir():
        path.unlink()
    assert len(tables(layout)[0]) == 2
    weights(layout, "original", 9.0)
    assert tables(layout) == ([], [])


def test_time_and_work_are_of_the_weights_that_the_row_is_of(layout: Layout) -> None:
    own, reference = weights(layout, FT, 1.0, seed="0"), weights(layout, "retrained", 2.0)
    scored(layout, FT, own, 80.0)
    clocked(layout, FT, own, 10.0, 2e9)
    clocked(layout, "retrained", reference, 100.0, 1e10)
    (row,), (mean,) = tables(layout)
    assert (row["seconds"], row["share_of_retrain"], mean["seconds"]) == ("10", "0.2", "10")
    clocked(layout, FT, "of another", 99.0, 9e9)
    (row,), (mean,) = tables(layout)
    config = loader.load(["--run.workspace", str(layout.root), "--method", "ft_at_20"], settings=settings.layer)
    assert (row["seconds"], mean["seconds"]) == ("", "")
    assert float(row["share_of_retrain"]) == pytest.approx(cost.planned_share(config), rel=1e-4)


def test_work_is_next_to_that_of_the_retrained_model_that_exists_now(layout: Layout) -> None:
    """Not next to that of one trained for longer, whose place a given one took."""
    own = weights(layout, FT, 1.0, seed="0")
    scored(layout, FT, own, 80.0)
    config = loader.load(["--run.workspace", str(layout.root)], settings=settings.layer)
    operations = cost.retraining_operations(config)
    clocked(layout, FT, own, 10.0, operations / 4)
    clocked(layout, "retrained", "of another", 100.0, 4 * operations)
    weights(layout, "retrained", 2.0, provenance="unknown")
    ((row,), _) = tables(layout)
    assert row["share_of_retrain"] == "0.25"


class Metrics:
    """An MLflow run that keeps what it is given."""

    def __init__(self) -> None:
        self.kept = dict[str, float | None]()

    def metrics(self, values: Mapping[str, float | None], step: int) -> None:
        self.kept |= values

    def tag(self, key: str, text: str) -> None:
        pass


def test_a_run_logs_the_share_that_its_row_has(layout: Layout) -> None:
    """Where a retrained model was given, too; without one there is none."""
    own, prepared = weights(layout, FT, 1.0, seed="0"), prepare(loader.load(["--run.workspace", str(layout.root)], settings=settings.layer))
    scored(layout, FT, own, 80.0)
    flops = cost.retraining_operations(prepared.config) / 3

    def logged() -> float | None:
        run_logging.log_cost(run := cast(RunLog, Metrics()), prepared, str(FT), own, (10.0, flops), 2)
        return cast(Metrics, run).kept["share_of_retrain"]

    assert logged() is None
    reference = weights(layout, "retrained", 2.0, provenance="unknown")
    assert logged() == pytest.approx(1 / 3)
    assert float(tables(layout)[0][0]["share_of_retrain"]) == pytest.approx(1 / 3, rel=1e-4)
    clocked(layout, "retrained", reference, 100.0, 2 * flops)
    assert logged() == 0.5
    assert tables(layout)[0][0]["share_of_retrain"] == "0.5"


def test_the_work_of_retraining_is_counted_once_for_all_rows(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the tables are written after every row."""
    times = 0

    def count(*models: Module) -> AbstractContextManager[work.Work]:
        nonlocal times
        times += 1
        return counted(*models)

    of, counted = of_seeds(layout, range(3), 70.0), work.counted
    averaged(layout, of, 71.0)
    for seed, model in of.items():
        clocked(layout, FT.with_seed(seed), model, 1.0, 1e9)
    monkeypatch.setattr(work, "counted", count)
    shares = [row["share_of_retrain"] for _ in range(2) for row in tables(layout)[0]]
    assert len(shares) == 6 and len({*shares}) == 1
    assert times <= 1
