"""What the benches compare is comparable: the same steps in every row, and a difference is seen."""

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import DataLoader

from lethe.data.splits import SPLITS
from support.benches import BENCH, bench


@pytest.mark.parametrize("batchnorm", ["train", "eval_frozen"])
def test_every_row_of_the_speed_bench_takes_the_same_steps(batchnorm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    speed = bench("speed")
    monkeypatch.setattr(torch.utils.data, "DataLoader", lambda *a, num_workers, persistent_workers=False, **k: DataLoader(*a, **k))
    steps: list[int] = []
    sizes = {"retain": 40, "forget": 24, "validation": 8, "test": 8}
    case = speed.Case("small", batchnorm, 0.5, sizes, 2, 1, 16, "convnet")
    setting = speed.Setting(case, torch.device("cpu"), torch.float32)
    rows: dict[str, Callable[..., dict[str, float]]] = {
        "notebook": lambda s: speed.today(s, advised=False),
        "advice": lambda s: speed.today(s, advised=True),
        "ours": speed.ours,
        "floor": speed.floor,
    }
    counts = {}
    with register_optimizer_step_post_hook(lambda *_: steps.append(1)):
        for name, row in rows.items():
            steps.clear()
            parts = row(setting)
            counts[name] = len(steps)
            assert parts["steps"] > 0
    assert set(counts.values()) == {sum(len(word) for *_, word in setting.words())} and counts["ours"] == 13
    assert setting.seen() == 2 * (40 + 24) + 40


@pytest.mark.parametrize(
    ("printed", "marks"),
    [
        (["reading", "phase ", "start ", "retain ", "percent ", "percent "], ["", "first step", "first step", "", "table", ""]),
        (["phase ", "original: reading 9 images into a logits table", "start ", "percent "], ["first step", "", "", "table"]),
        (["phase ", "start ", "phase ", "start ", "percent "], ["first step", "first step", "", "", "table"]),
    ],
)
def test_what_is_printed_before_the_first_step_and_with_the_table(printed: list[str], marks: list[str]) -> None:
    assert [bench("result").marked(printed[: at + 1]) for at in range(len(printed))] == marks


def test_compare_names_the_first_number_that_differs(tmp_path: Path) -> None:
    compare = bench("compare")
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in ("epochs", "models"):
        (one / folder).mkdir(parents=True)
    (one / "epochs" / "m.csv").write_text("step,forget.accuracy,gap\n0,50.0,\n1,40.0,1.5\n")
    save_file({"a": np.ones(3, np.float32), "b": np.zeros(2, np.float32)}, one / "models" / "m.safetensors")
    shutil.copytree(one, other)
    assert compare.difference(one, other, "m") is None
    weights = load_file(other / "models" / "m.safetensors")
    weights["b"][1] = -0.0
    save_file(weights, other / "models" / "m.safetensors")
    assert compare.difference(one, other, "m") == "weights, b"
    (other / "epochs" / "m.csv").write_text("step,forget.accuracy,gap\n0,50.0,\n1,40.0,1.5000001\n")
    assert compare.difference(one, other, "m") == "epoch 1, gap: 1.5 and 1.5000001"
    (other / "epochs" / "m.csv").write_text("step,forget.accuracy,gap\n0,50.0,\n")
    assert compare.difference(one, other, "m") == "1 and 0 epochs"


def test_fronts_and_rows_of_the_tables_in_one_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the files that stand under results/: the numbers drawn are theirs."""
    results = BENCH.parent / "results"
    tables, trials = results / "cifar10_jpeg", results / "cifar10_jpeg_search" / "trials.csv"
    words = ["--trials", f"cheap={trials}", "--tables", str(tables), "--found", f"again={tables / 'scores' / 'hybrid_4.json'}"]
    monkeypatch.setattr(sys, "argv", ["fronts.py", *words, "--write", str(tmp_path / "fronts")])
    bench("fronts").main()
    assert (tmp_path / "fronts.png").stat().st_size > 10_000
    with (tmp_path / "fronts.csv").open() as file:
        points = {(row["kind"], row["name"]): row for row in csv.DictReader(file)}
    assert sum(kind == "trial, cheap" for kind, _ in points) == 60
    ours, again, published = points["independent", "hybrid_4"], points["found", "again"], points["published", "hybrid_4"]
    with (tables / "table_8.csv").open() as file:
        row = next(row for row in csv.DictReader(file) if (row["method"], row["reading"]) == ("hybrid_4", "independent"))
    apart = [abs(float(row[f"{split}.distance"])) for split in ("retain", "forget", "validation")]
    assert float(ours["distance"]) == pytest.approx(sum(apart) / 3, abs=1e-4)
    assert float(again["distance"]) == pytest.approx(float(ours["distance"]), abs=1e-4)
    assert (published["over"], published["test"]) == ("retain+forget", "78.02")


def test_the_coverage_bench_counts_intervals_that_hold_the_true_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coverage = bench("coverage")

    def every_other(n: int, draw: np.random.Generator) -> dict[str, tuple[float, float, float]]:
        """The case of seeds, whose true value is 99: every other draw's interval ends below it."""
        calls.append(n)
        return {"held": (99.0, 98.0, 100.0), "half": (98.0, 97.0, 98.5 + len(calls) % 2)}

    calls: list[int] = []
    monkeypatch.setattr(coverage, "cases", lambda: iter([("seeds", "two", every_other, (50, 100), 0.25)]))
    options = {"only": "", "population": "", "quick": False, "sizes": None, "draws": None, "measures": None}
    table = coverage.measured(argparse.Namespace(**options, write=tmp_path / "after.csv"))
    assert calls == [50] * 20 + [100] * 20
    assert table.set_index(["measure", "images"]).coverage.to_dict() == {
        ("held", 50): 1.0,
        ("half", 50): 0.5,
        ("held", 100): 1.0,
        ("half", 100): 0.5,
    }
    (tmp_path / "before.csv").write_text((tmp_path / "after.csv").read_text())
    assert "| `half` | 50 → 50 | 50 → 50 |" in coverage.page(tmp_path)
    context = coverage.POPULATIONS["remembered"].context(20, np.random.default_rng(0), 2)
    assert set(coverage.ends(context, "accuracy", "relearn")) == {"accuracy." + split for split in SPLITS} | {"relearn"}


def test_a_run_that_fails_or_comes_too_late_is_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    gpu = bench("gpu")
    units = [gpu.Unit("ft", seed, "()", "", "convnet") for seed in range(2)]
    record = gpu.Record(tmp_path / "found.json", {}, 10)
    gpu.train_all("methods", units, tmp_path, record, None)  # the folder has no plan
    assert [one["run"] for one in record.found["left_out"]] == ["ft.seed0", "ft.seed1"]
    assert all(one["why"].startswith("FileNotFoundError: ") for one in record.found["left_out"])
    assert gpu.train(units[0], tmp_path, 0.0) == {"left_out": "the time was over"}


def test_tries_by_the_same_seed_are_counted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    faults, written = bench("faults"), tmp_path / "faults.json"
    row = {"about": "kills", "tried": 3, "right": 2, "seconds": 1, "seed": 5, "commit": "a", "wrong": ["one"]}
    both = faults.added(row, row | {"seed": 6, "tried": 4, "right": 4, "wrong": []})
    assert (both["tried"], both["right"], both["seed"], both["commit"], both["wrong"]) == (7, 6, "5, 6", "a", ["one"])
    written.write_text(json.dumps({"kills": both}))
    monkeypatch.setattr(sys, "argv", ["faults.py", "--kinds", "kills", "--seed", "6", "--write", str(written), "--add"])
    with pytest.raises(SystemExit):
        faults.main()
    assert "--seed is 6" in capsys.readouterr().err and json.loads(written.read_text()) == {"kills": both}


def test_steps_of_a_peer_are_those_of_the_thread_that_takes_them() -> None:
    """What another thread does meanwhile counts for the process alone."""
    marks = bench("peers").Marks.__new__(bench("peers").Marks)
    marks.first, marks.after, marks.of_thread = 0.5, [1.0, 3.0, 5.0], [1.0, 2.0, 3.0]
    told = marks.told(6.0)
    assert (told["steps"], told["images_per_second"], told["images_per_second_of_process"]) == (3, 128.0, 64.0)


def test_a_peer_that_is_missing_has_a_row_that_says_so() -> None:
    peers = bench("peers")
    run = {"images_per_second": 100.0, "to_first_step": 1.0, "to_result": 2.5, "peak_gib": 0.5}
    row = {"steps_by": "a loop", "measures": "accuracies"}
    found = {"loop": row | {"runs": [run, run | {"to_result": 3.5}, run]}, "erasus": row | {"runs": [], "missing": "it can't be installed"}}
    *_, loop, missing = peers.table(found).splitlines()
    assert loop == "| loop | 100 | 1.00 | 2.50 | 0.50 | a loop | accuracies |"
    assert missing == "| erasus 0.2.0 | it can't be installed |  |  |  | a loop | accuracies |"
    assert {*peers.FUNCTIONS, *peers.OURS} == {*peers.ROWS} and all("==" in pin for row in peers.ROWS.values() for pin in row.packages)


def test_what_a_crashed_interpreter_printed_is_kept() -> None:
    last_words = bench("faults").kills.last_words
    crashed = "device cpu\nFatal Python error: Segmentation fault\n\nThread 0x1:\n  File a.py, line 3\n\nExtension modules: numpy\n"
    assert last_words(crashed) == "Fatal Python error: Segmentation fault < Thread 0x1: < File a.py, line 3"
    assert (last_words("one\nerror: two\n"), last_words("")) == ("error: two", "")


def test_gaps_next_to_each_retrained_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gaps = bench("gaps")
    (tmp_path / "references.csv").write_text(
        "name,retain,forget,validation,test,mia.svc\noriginal,99,99,80,80,4\na,99,80,80,80,20\nb,98,82,80,80,19\n"
    )
    head = "method,share,seed,retain,forget,validation,test,mia.svc,avg_gap.svc,share_of_retrain\n"
    (tmp_path / "leaderboard.csv").write_text(head + "ft,0.1,0,99,84,80,80,20,1,0.1\nft,0.1,1,99,80,80,80,20,0,0.1\n")
    (tmp_path / "leaderboard_b.csv").write_text(head + "not,0.1,0,95,80,80,80,20,,0.1\n")
    gaps.main([str(tmp_path)])
    with (tmp_path / "gaps.csv").open() as file:
        rows = {row["method"]: row for row in csv.DictReader(file)}
    # ft next to a: (0 + 4 + 0 + 0) / 4 and 0; next to b: (1 + 2 + 0 + 1) / 4 both times
    assert [float(rows["ft"][name]) for name in ("seeds", "a", "b", "mean")] == [2, 0.5, 1, 0.75]
    assert [float(rows["not"][name]) for name in ("seeds", "a", "b", "mean")] == [1, 1, 1.5, 1.25]
    # original: (0 + 19 + 0 + 16) / 4 and (1 + 17 + 0 + 15) / 4
    assert capsys.readouterr().out.endswith("floor 1.00, doing nothing 8.50\n")
    assert {path.name for path in tmp_path.glob("*.png")} == {"gap.png", "forget_against_test.png"}
