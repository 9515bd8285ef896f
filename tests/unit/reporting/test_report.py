"""The report against score files made by hand: what stands in it, what it says by rule, and what it leaves behind."""

import csv
import io
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from lethe._util.errors import UserError
from lethe._util.files import write_json, write_text
from lethe.config import loader as config
from lethe.data import splits
from lethe.data.images import Images, save_images
from lethe.data.request import DeletionRequest
from lethe.evaluation.chance import chance_range
from lethe.evaluation.uncertainty import share
from lethe.evaluation.verdict import accuracies as verdict
from lethe.evaluation.verdict.accuracies import ResultSet, assess
from lethe.models import checkpoint
from lethe.plots import report_figures
from lethe.recipes.paper_methods import PAPER_METHODS
from lethe.reporting import narrative, published, report, report_data, tables

SIZES = {"retain": 1500, "forget": 500, "validation": 500, "test": 500}
ORIGINAL, RETRAINED = (99.4, 99.2, 88.0, 88.2), (99.6, 88.2, 88.4, 88.6)
RAN = {"model_1": (99.8, 99.0, 88.2, 88.4), "hybrid_3": (99.2, 71.4, 84.6, 84.8), "hybrid_4": (98.2, 66.2, 78.4, 78.6)}
CHAIN = {"model_1": (100.0, 99.4, 88.6, 88.0), "model_2": (100.0, 98.8, 88.2, 88.4)}


def score(home, name, row):
    write_json(home / "scores" / f"{name}.json", {"accuracy": dict(zip(splits.SPLITS, row, strict=True)), "gap": row[0] - row[1]})


def epochs(home, name, validation):
    rows = [f"{step},run,{value},{step * 1.5}" for step, value in enumerate(validation)]
    write_text(home / "epochs" / f"{name}.csv", "\n".join(["step,phase,validation.accuracy,gap", *rows]) + "\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    home = tmp_path_factory.mktemp("report") / "workspace"
    labels = np.arange(3000) % 10
    ids = [f"train/{i}" for i in range(2000)] + [f"test/{i}" for i in range(1000)]
    images = Images(np.zeros((3000, 3, 2, 2), np.uint8), labels, tuple(ids), tuple("0123456789"), 1000)
    save_images(images, home / "data" / "images.safetensors", "")
    drawn = splits.draw(images, DeletionRequest(fraction=0.25), 42)
    splits.write(drawn, images, home / "data" / "splits")
    for name, row in {"original": ORIGINAL, "retrained": RETRAINED, **RAN}.items():
        score(home, name, row)
        if name in RAN:
            epochs(home, name, (88, 80, row[2]))
    for name, row in CHAIN.items():
        score(home, f"as_run/{name}", row)
        epochs(home, f"as_run/{name}", (88, 87, 86, row[2]))
    tensors = {"logits": checkpoint.load(home / "data" / "images.safetensors")[0]["labels"]}
    checkpoint.save(tensors, home / "logits" / "model_1.safetensors", {"split": splits.split_hash(drawn, images)})
    return home


@pytest.fixture
def home(made, tmp_path):
    shutil.copytree(made, tmp_path / "workspace")
    return tmp_path / "workspace"


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take seconds; most tests look at their records."""
    for name in ("scatter", "lines"):
        monkeypatch.setattr(report_figures, name, lambda record, **how: b"png")


def written(home):
    report.report(config.load(["--run.workspace", str(home)]))
    return {path.name: path.read_bytes() for path in (home / "report").iterdir()}


def rows(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


def line(page, name):
    """The cells of a table's row; original and retrained stand in both tables."""
    (found,) = {text for text in page.decode().splitlines() if text.startswith(f"| {name} |")}
    return [cell.strip() for cell in found.split("|")[1:-1]]


def test_every_number_is_that_of_its_score_file(home, undrawn):
    made = written(home)
    tables = rows(made["table_7.csv"]) + rows(made["table_8.csv"])
    for reading, files in (("independent", RAN), ("as_run", CHAIN), ("published", published.TABLE_7 | published.TABLE_8)):
        for name, row in files.items():
            (found,) = [r for r in tables if (r["method"], r["reading"]) == (name, reading)]
            known = row if isinstance(row, dict) else dict(zip(splits.SPLITS, row, strict=True))
            assert {split: float(found[split]) for split in splits.SPLITS} == known
            if reading != "published":
                apart = {split: known[split] - RETRAINED[i] for i, split in enumerate(splits.SPLITS)}
                assert {split: float(found[f"{split}.distance"]) for split in splits.SPLITS} == pytest.approx(apart, abs=1e-6)
                mean = (abs(apart["retain"]) + abs(apart["forget"]) + abs(apart["test"])) / 3
                assert float(found["mean_distance"]) == pytest.approx(mean, abs=1e-6)
    cells = line(made["report.md"], "Hybrid-4")
    assert cells[1:5] == ["98.42 (-1.08)", "66.64 (-21.56)", "78.88", "78.02"]
    assert cells[5:9] == ["98.20 (-1.40)", "66.20 (-22.00)", "78.40 (-10.00)", "78.60 (-10.00)"]
    assert [line(made["report.md"], "*retrained*")[i] for i in (2, 6, 10)] == ["88.20", "88.20", "88.20"]


def test_another_score_makes_another_page(home, undrawn):
    before = written(home)
    score(home, "hybrid_4", (98.2, 65.4, 78.4, 78.6))
    after = written(home)
    assert line(after["report.md"], "Hybrid-4")[6] == "65.40 (-22.80)"
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"report.md", "report.html", "table_8.csv", "figure_1.csv", "figure_4.csv"}


def test_a_method_without_a_run_says_so(home, undrawn):
    made = written(home)
    assert line(made["report.md"], "Model 3")[5:] == ["not run", "", "", "", "not run", "", "", "", "–, –"]
    assert line(made["report.md"], "Model 2")[5] == "not run"
    assert line(made["report.md"], "Model 2")[9] == "100.00 (+0.40)"
    status = {(r["method"], r["reading"]): r["status"] for r in rows(made["table_7.csv"])}
    assert (status["model_2", "independent"], status["model_2", "as_run"]) == ("not run", "run")


def test_what_no_longer_is_true_goes(home, undrawn):
    score(home, "mine", (99.0, 90.0, 88.0, 88.0))
    assert {"table_others.csv", "figure_2.png", "figure_3.csv"} <= set(written(home))
    (home / "scores" / "mine.json").unlink()
    (home / "report" / "notes.txt").write_text("a person's own")
    shutil.rmtree(home / "epochs")
    shutil.rmtree(home / "scores" / "as_run")
    made = written(home)
    assert set(made) == {"notes.txt", "report.md", "report.html"} | {f"{n}.csv" for n in ("table_7", "table_8")} | {
        f"figure_{n}.{kind}" for n in (1, 4) for kind in ("csv", "png")
    }
    assert "Not run: nothing to draw." in made["report.md"].decode()
    assert "Not run. `python src/unlearn.py --method as_run` produces these results." in made["report.md"].decode()


def test_variants_and_other_seeds(home, undrawn):
    score(home, "hybrid_4_found", (99.0, 89.0, 88.0, 88.0))
    score(home, "hybrid_4.seed1", (1.0, 2.0, 3.0, 4.0))
    made = written(home)
    assert line(made["report.md"], "hybrid_4_found")[1:5] == ["99.00 (-0.60)", "89.00 (+0.80)", "88.00 (-0.40)", "88.00 (-0.60)"]
    assert b"seed1" not in made["report.md"]
    assert {r["family"] for r in rows(made["figure_1.csv"]) if r["method"] == "hybrid_4_found"} == {"other"}


def several(home, name, forget, test):
    """A score file that stands for several seeds; the retrained model of each is a point above the next's."""
    each = {
        str(k): {"accuracy": {"retain": 99.0, "forget": f, "validation": 80.0, "test": t}}
        for k, (f, t) in enumerate(zip(forget, test, strict=True))
    }
    for k, one in enumerate(each.values()):
        one["distance"] = {split: value - 80 - k for split, value in one["accuracy"].items()}
    mean = {split: float(np.mean([one["accuracy"][split] for one in each.values()])) for split in splits.SPLITS}
    write_json(home / "scores" / f"{name}.json", {"accuracy": mean, "gap": 0, "seeds": each})


def test_several_seeds_are_means_with_intervals_and_neighbours_are_tested(home, undrawn):
    before = written(home)
    assert "noise" not in before["report.md"].decode() and "±" not in before["report.md"].decode()
    assert "each of one run" in before["report.md"].decode()
    several(home, "model_1", (90.0, 91.0, 92.0), (70.0, 70.0, 70.0))
    several(home, "model_2", (85.0, 86.2, 87.1), (70.0, 71.0, 69.0))
    several(home, "model_3", (85.0, 86.0, 87.0), (70.0, 70.5, 69.0))
    several(home, "model_5", (10.0, 60.0, 110.0), (70.0, 70.5, 69.0))
    made = written(home)
    page = made["report.md"].decode()
    half = 4.302653 / np.sqrt(3)  # Student's t of 2 degrees of freedom; the standard deviation is 1
    assert line(made["report.md"], "Model 1")[6] == f"91.00 ± {half:.2f} (+10.00)"  # paired, not beside the mean of all
    (row,) = [r for r in rows(made["table_7.csv"]) if (r["method"], r["reading"]) == ("model_1", "independent")]
    assert float(row["forget.half_width"]) == pytest.approx(half, abs=1e-5)
    assert (row["seeds"], row["forget.distance"]) == ("3", "10.0")
    tested = rows(made["table_7_neighbours.csv"])
    pairs = [("model_1", "model_2"), ("model_2", "model_3"), ("model_3", "model_5")]  # Model 4 did not run
    assert [(r["first"], r["second"], r["split"]) for r in tested] == [(*pair, split) for pair in pairs for split in ("forget", "test")]
    assert [r["more_than_noise"] for r in tested] == ["True"] + ["False"] * 5
    assert float(tested[0]["adjusted"]) == pytest.approx(6 * float(tested[0]["p"]), rel=1e-2)
    assert "two-sided; the sign test where all differences are equal), Holm's correction for the 6 tests of this table" in page
    assert "| Model 1, Model 2 | forget | 3 | +4.90 ± 0.25 | below 0.001 |" in page and "**more than noise**" in page
    assert "table_8_neighbours.csv" not in made  # there is one run of each
    assert "Model 1 (seeds 0 to 2), Model 2 (seeds 0 to 2)" in page and "each of one run" not in page
    score(home, "model_2", (99.0, 86.0, 80.0, 70.0))  # one run between two of several: nothing to test
    assert [(r["first"], r["second"]) for r in rows(written(home)["table_7_neighbours.csv"])] == [("model_3", "model_5")] * 2
    for name in ("model_1", "model_2", "model_3", "model_5"):
        score(home, name, RAN["model_1"])
    assert "table_7_neighbours.csv" not in written(home)


@pytest.mark.parametrize(
    ("forget", "low", "kind"), [(85.0, 84.0, "as retrained"), (85.0, 86.0, "over-forgets"), (80.0, 79.0, "as retrained")]
)
def test_one_rule_for_alarm_and_verdict(home, undrawn, forget, low, kind):
    """What chance alone would call otherwise: the alarm's interval decides, on the table, in its record and in words."""
    write_json(
        home / "scores" / "hybrid_4.json",
        {
            "accuracy": dict(zip(splits.SPLITS, (99.0, forget, 88.0, 88.0), strict=True)),
            "measures": {"accuracy.forget": {"value": forget, "reference": {"value": 88.2, "low": low, "high": 91.0}}},
        },
    )
    made = written(home)
    (row,) = [r for r in rows(made["table_8.csv"]) if (r["method"], r["reading"]) == ("hybrid_4", "independent")]
    over = kind == "over-forgets"
    assert row["says"] == kind
    assert ("**!**" in line(made["report.md"], "Hybrid-4")[6]) == over
    assert ("**Alarm**: Hybrid-4 over-forgets" in made["report.md"].decode()) == over


def test_the_records_of_the_figures(home, undrawn):
    made = written(home)
    first, fourth = rows(made["figure_1.csv"]), rows(made["figure_4.csv"])
    (ours,) = [r for r in first if (r["method"], r["panel"]) == ("hybrid_4", "independent (digits)")]
    assert (ours["label"], float(ours["forget"]), float(ours["retain"])) == ("H4", 66.2, 98.2)
    (ours,) = [r for r in fourth if (r["method"], r["panel"]) == ("retrained", "as run (digits)")]
    assert (float(ours["test"]), float(ours["forget"])) == (88.6, 88.2)
    like = share(443, 500, 100.0)
    assert (float(ours["test.low"]), float(ours["test.high"])) == pytest.approx(chance_range(like, like), abs=1e-6)
    assert {r["test.low"] for r in fourth if r["method"] != "retrained"} == {""}
    second, third = rows(made["figure_2.csv"]), rows(made["figure_3.csv"])
    points = [
        (int(r["epoch"]), float(r["validation"])) for r in second if (r["method"], r["panel"]) == ("hybrid_4", "independent: four hybrids")
    ]
    assert points == [(0, 88), (1, 80), (2, 78.4)]
    chain = [(r["method"], int(r["epoch"]), float(r["gap"])) for r in third if r["panel"] == "as run" and r["family"] == "model"]
    assert chain == [("model_1", e, 1.5 * e) for e in range(4)] + [("model_2", 3 + e, 1.5 * e) for e in range(4)]
    levels = {r["method"]: (r["epoch"], float(r["gap"])) for r in third if r["family"] == "reference"}
    assert levels == {"original": ("0", pytest.approx(0.2)), "retrained": ("", pytest.approx(11.4))}


@pytest.mark.slow
def test_drawn_twice_the_same_and_without_a_place_or_a_time(home):
    made = written(home)
    assert written(home) == made
    assert str(home) not in made["report.md"].decode()
    for name in ("figure_1", "figure_2", "figure_3", "figure_4"):
        assert made[f"{name}.png"].startswith(b"\x89PNG")
        assert b"tIME" not in made[f"{name}.png"]
        assert b"Software" not in made[f"{name}.png"]
    links = re.findall(r"\]\(([^)]*)\)", made["report.md"].decode())
    assert set(links) == set(made) - {"report.md"}


def test_stdout_has_the_path_and_the_table(home, undrawn, capsys):
    written(home)
    first, second, *table = capsys.readouterr().out.splitlines()
    assert [first, second] == [str(home / "report" / name) for name in ("report.md", "report.html")]
    assert [text.split() for text in table if text.startswith("Hybrid-4")] == [
        ["Hybrid-4", "98.42", "98.20", "not", "run", "66.64", "66.20", "78.88", "78.40", "78.02", "78.60"]
    ]
    assert max(map(len, table)) <= 120


def test_nothing_is_half_written(home, undrawn, monkeypatch):
    before = written(home)
    score(home, "hybrid_4", (1.0, 2.0, 3.0, 4.0))

    def full(record, **how):
        raise OSError("no space left")

    monkeypatch.setattr(report_figures, "lines", full)
    with pytest.raises(OSError, match="no space left"):
        written(home)
    assert {path.name: path.read_bytes() for path in (home / "report").iterdir()} == before


def test_what_does_not_belong_is_refused(home, undrawn):
    checkpoint.save(
        checkpoint.load(home / "logits" / "model_1.safetensors")[0], home / "logits" / "model_1.safetensors", {"split": "other"}
    )
    with pytest.raises(UserError, match=r"scores/model_1\.json was measured on other splits .*src/evaluate\.py.*--method model_1"):
        written(home)
    (home / "scores" / "model_1.json").write_text(json.dumps({"accuracy": {"retain": 1}}))
    shutil.rmtree(home / "logits")
    with pytest.raises(UserError, match=r"model_1\.json does not hold the accuracies"):
        written(home)
    shutil.rmtree(home / "scores")
    with pytest.raises(UserError, match=r"holds no scores; `python src/unlearn\.py"):
        written(home)
    assert not (home / "report").exists()


# --- words --------------------------------------------------------------------------------------------------------------


def reading(retrained=RETRAINED, original=ORIGINAL, n=5000, **methods):
    table = {"original": original, "retrained": retrained, **methods}
    named = {name: dict(zip(splits.SPLITS, row, strict=True)) for name, row in table.items()}
    return ResultSet("mine", "", "", dict.fromkeys(splits.SPLITS, n), named)


@pytest.mark.parametrize(
    ("forget", "test", "kind"),
    [
        (99.0, 88.6, "barely forgets"),  # as the original
        (96.6, 88.6, "barely forgets"),  # less than a quarter of the way
        (94.0, 88.6, "partly forgets"),
        (88.0, 88.4, "as retrained"),
        (80.0, 88.6, "over-forgets"),  # below the retrained model
        (87.6, 91.6, "over-forgets"),  # not below it, but further below its own test accuracy
        (45.0, 45.0, "over-forgets"),  # everything fell
    ],
)
def test_the_verdict_follows_from_forget_and_test_accuracy(forget, test, kind):
    found = assess(reading(model_1=(99.0, forget, 88.0, test)), "model_1")
    assert found is not None
    assert found.kind == kind
    said = [text for text in narrative.findings(reading(model_1=(99.0, forget, 88.0, test))) if f"**{verdict.KINDS[kind][0]}**" in text]
    assert len(said) == 1
    assert f"Model 1 {forget:.1f} ({forget - 88.2:+.1f}" in said[0]


def test_damage_is_told_from_singling_out():
    said = " ".join(narrative.findings(reading(model_1=(46.0, 45.0, 45.0, 45.0), model_2=(99.0, 70.0, 88.0, 88.0))))
    assert "Model 1 45.0 (-43.2; test accuracy fell as well), Model 2 70.0 (-18.2; 18.0 below its own test accuracy)" in said
    assert "the whole model is damaged and the forgotten images do not stand out" in said
    assert "**Loss of accuracy**: Model 1 -43.6 points" in said


def test_a_forgotten_class_is_no_over_forgetting():
    """Its retrained model gets none of it right: there low forget accuracy is the aim."""
    found = assess(reading(retrained=(99.6, 0.0, 88.4, 88.6), model_1=(99.0, 0.04, 88.0, 88.4)), "model_1")
    assert found is not None
    assert found.kind == "as retrained"


def test_few_images_decide_nothing():
    few = reading(n=40, model_1=(99.0, 93.0, 88.0, 88.6))
    assert not verdict.discriminates(few)
    assert "**Cannot discriminate**" in narrative.findings(few)[-1]
    some = assess(reading(n=100, model_1=(99.0, 95.0, 88.0, 88.6)), "model_1")
    assert some is not None
    assert some.kind == "undecided"


def test_nearest_is_said_beside_doing_nothing():
    said = narrative.findings(reading(model_1=(99.6, 90.2, 88.4, 88.6), model_2=(99.6, 60.0, 88.4, 70.0)))[1]
    assert "**Nearest to retrained**" in said
    assert "Model 1 0.7. The original, which did nothing, is at 3.9; no nearer than that: Model 2 15.6." in said


def test_beside_the_gap_of_the_mean_are_the_mean_of_the_gaps_and_the_floor():
    among = [dict(zip(splits.SPLITS, (99.6, forget, 88.4, 88.6), strict=True)) for forget in (87.0, 88.0, 89.0)]
    assert verdict.floor(among[:2]) is None
    assert verdict.floor(among) == pytest.approx((1.5 + 0.0 + 1.5) / 3 / 3)  # from the mean of the two others, over three splits
    seeds = {
        0: {"retain": 0.0, "forget": 3.0, "validation": 9.0, "test": 0.0},
        1: {"retain": 0, "forget": -6.0, "validation": 9, "test": 0},
    }
    of = replace(reading(model_1=(99.6, 86.7, 88.4, 88.6)), distances_by_seed={"model_1": seeds}, floor=verdict.floor(among))
    assert (of.mean_distance("model_1"), of.mean_distance_of_seeds("model_1")) == (pytest.approx(0.5), pytest.approx(1.5))
    said = narrative.findings(of)[1]
    assert "in brackets the mean of each one's): Model 1 0.5 (1.5). A retrained model next to the others is at 0.3, the floor. The" in said


def test_without_a_retrained_model_nothing_is_said():
    alone = replace(reading(), accuracies={"original": {}, "model_1": {}})
    assert assess(alone, "model_1") is None
    assert narrative.findings(alone) == [
        "Accuracies say nothing about forgetting without an original and a retrained model to compare with."
    ]


def test_the_published_hybrids_over_forget():
    everything = published.REFERENCES | published.TABLE_7 | published.TABLE_8
    kinds = {name: assess(ResultSet("published", "", "", published.SIZES, everything), name) for name in PAPER_METHODS}
    assert [name for name, found in kinds.items() if found and found.kind == "over-forgets"] == [
        "model_5", "hybrid_1", "hybrid_2", "hybrid_3", "hybrid_4",
    ]  # fmt: skip
    assert [name for name, found in kinds.items() if found and found.kind == "barely forgets"] == ["model_1", "model_2", "model_3"]


def test_the_alarm_is_in_the_report(home, undrawn):
    over = {"value": 66.2, "reference": {"value": 88.2, "low": 85.4, "high": 91.0}}
    for name in ("hybrid_4", "as_run/model_1"):
        path = home / "scores" / f"{name}.json"
        write_json(path, json.loads(path.read_text()) | {"measures": {"accuracy.forget": over}})
    said = [text for text in written(home)["report.md"].decode().splitlines() if "**Alarm**" in text]
    beyond = "over-forgets: forget accuracy 66.2 is below 85.4, outside the range in which 95 % of retrained models are by chance."
    assert said == [f"- **Alarm**: Hybrid-4 {beyond}", f"- **Alarm**: Model 1 {beyond}"]


def test_nothing_in_the_report_compares_with_an_unfit_reference(home, undrawn):
    assert "reference" not in written(home)["report.md"].decode()
    unfit = "the retrained model is no reference: it gets 54.6 % of retain right"
    path = home / "scores" / "original.json"
    write_json(path, json.loads(path.read_text()) | {"verdict": "reference_unfit", "reference_unfit": unfit})
    files = written(home)
    page = files["report.md"].decode()
    for part in (page.partition("## ")[0], page.partition("### Independent")[2].partition("##")[0]):
        assert f"**No verdict**: {unfit}." in part
    ours = [row for name in ("table_7", "table_8") for row in rows(files[f"{name}.csv"]) if row["reading"] != "published"]
    assert ours and not any(row["says"] or row["mean_distance"] or row["forget.distance"] for row in ours)
    assert "retrained" not in {row["method"] for row in rows(files["figure_4.csv"]) if not row["panel"].startswith("published")}


def test_only_cifar10_proper_is_compared(home, undrawn, monkeypatch):
    assert "**The published numbers are for CIFAR-10" in written(home)["report.md"].decode()
    measured = report_data.read(config.load(["--run.workspace", str(home)]))
    page = report.render(replace(measured, comparable=True, source="cifar10"), {})["report.md"].decode()
    assert "This is CIFAR-10 with the published architecture" in page
    assert "**Difference from the published accuracies**" in page
    assert "**The published numbers are for CIFAR-10" not in page


def test_nothing_published_stands_beside_ones_own_images(home, undrawn):
    """Published accuracies are of CIFAR-10: beside other images they are left out, with what did not run."""
    of = report_data.read(config.load(["--run.workspace", str(home)]))
    own = replace(of, source="image_folder", results={key: of.results[key] for key in ("independent", "as_run")})
    made = report.render(own, {})
    page = made["report.md"].decode()
    assert not re.search("published|CIFAR|Table [78]|ten methods", page)
    assert "## Models" in page and "six models" not in page.partition("## What")[0]  # these are three
    assert "not run" not in page.partition("## Hybrids")[2]  # the chain ran two of the models alone
    assert "ublished" not in page and "published" not in made["report.html"].decode()
    assert {row["method"] for row in rows(made["table_8.csv"])} == {"original", "retrained", "hybrid_3", "hybrid_4"}
    assert {row["reading"] for row in rows(made["table_7.csv"])} == {"independent", "as_run"}
    assert {row["reading"] for row in rows(made["table_8.csv"])} == {"independent"}
    chainless = {key: replace(results, accuracies={}) if key == "as_run" else results for key, results in own.results.items()}
    assert [*replace(own, results=chainless).shown] == ["independent"]
    assert tables.console_table(own).splitlines()[1].split() == ["ours", "as", "run"] * 4
    alone = tables.console_table(replace(own, results=chainless)).splitlines()
    assert alone[0].split() == ["percent", "retain", "forget", "validation", "test"]
    assert "Model 3" not in tables.console_table(own)


def test_of_which_images_the_published_numbers_stand_beside(home, undrawn):
    assert "published" in report_data.read(config.load(["--run.workspace", str(home)])).results
    ids = [f"train/{i}" for i in range(2000)] + [f"test/{i}" for i in range(1000)]
    classes = tuple(f"friend {n}" for n in range(10))
    own = Images(np.zeros((3000, 3, 2, 2), np.uint8), np.arange(3000) % 10, tuple(ids), classes, 1000)
    save_images(own, home / "data" / "images.safetensors", "")
    found = report_data.read(config.load(["--run.workspace", str(home), "--data.source", "image_folder", "--data.root", str(home)]))
    assert "published" not in found.results
