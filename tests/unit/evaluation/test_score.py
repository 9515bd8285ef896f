"""The content of a score file, the alarm, and the names of its metrics in MLflow."""

import json
from dataclasses import replace
from typing import Any

import pytest

from lethe._util.errors import UserError
from lethe.data.splits import SPLITS
from lethe.evaluation import registry
from lethe.evaluation import seed_aggregation as seeds
from lethe.evaluation.catalogue import all_measures
from lethe.evaluation.chance import chance_range
from lethe.evaluation.score import Score, metric_name, score_model
from lethe.evaluation.uncertainty import EXAMPLES, REFITTED, SHARE
from lethe.evaluation.verdict.words import Part, Verdict
from lethe.reporting.console_tables import LOST, accuracy_table
from lethe.testing.tables import drawn


@pytest.fixture(scope="module")
def measured() -> Score:
    return score_model(drawn(1, 3.0, "unlearned"), [drawn(100, name="retrained")], drawn(50, 3.0, "original"))


def test_every_measure_is_a_number_with_its_interval_or_says_what_is_missing(measured: Score) -> None:
    found = measured.to_json()["measures"]
    absent = {each.id for each in all_measures() if not any(f"{id_}.".startswith(f"{each.id}.") for id_ in found)}
    assert absent == {"accuracy_of", "seconds", "flops", "share_of_retrain", "peak_memory"}  # of whole-class requests; of the machine
    for id_, got in found.items():
        assert got.keys() == {"missing"} or got.keys() - {"reference"} == {"value", "low", "high", "interval"}, id_
        if "value" in got:
            exact = SHARE if id_.startswith(("accuracy.", "iam.below_half")) else EXAMPLES
            assert got["interval"] == (REFITTED if id_ == "mia.svc" else exact)
    assert found["rmia.gamma_1"] == {"missing": "needs at least 8 retrained models; 1 available"}
    assert (measured.tier, measured.references) == (1, 1)
    assert [registry.highest_tier(n) for n in (0, 1, 7, 8, 63, 64, 100)] == [0, 1, 1, 2, 2, 3, 3]
    content = json.loads(json.dumps(measured.to_json()))
    assert content == measured.to_json() and Score.from_json(content, "") == measured


def test_the_blocks_that_were_there_before_say_the_same(measured: Score) -> None:
    table = drawn(1, 3.0)
    for number, split in enumerate(SPLITS):
        rows = table.split == number
        assert measured.accuracy[split] == measured.value(f"accuracy.{split}")
        assert measured.accuracy[split] == round(100 * float(table.correct[rows].mean()), 6)
        assert measured.loss[split] == pytest.approx(table.loss[rows].mean(), abs=1e-6)
    assert measured.gap == pytest.approx(measured.accuracy["retain"] - measured.accuracy["forget"], abs=1e-6)


def test_the_references_own_number_stands_beside(measured: Score) -> None:
    alone, ours = (score.to_json()["measures"] for score in (score_model(drawn(100, name="retrained")), measured))
    for id_ in ("accuracy.forget", "mia.svc", "mia.over"):
        assert ours[id_]["reference"] == {key: alone[id_][key] for key in ("value", "low", "high", "interval")}
    assert "reference" not in ours["distance.forget"]


def test_names_in_mlflow(measured: Score) -> None:
    told = measured.metrics()
    assert {
        "test.accuracy",
        "test.loss",
        "forget.distance",
        "forget.kl_to_reference",
        "mia.svc",
        "avg_gap.svc",
        "tow",
        "iam.mean",
    } <= told.keys()
    assert not {"retain.accuracy", "forget.accuracy", "validation.accuracy"} & told.keys()  # the last epoch's
    assert told["forget.distance"] == measured.value("distance.forget")
    assert metric_name("accuracy_of.forgotten_classes.test") == "test.accuracy_of.forgotten_classes"
    distances = measured.distances(score_model(drawn(100)))
    assert {key: told[key] for key in distances} == pytest.approx(distances, abs=1.1e-6)


def test_the_alarm_rings_for_over_forgetting_alone(measured: Score) -> None:
    references = [drawn(100, name="retrained")]
    over = score_model(drawn(1, -3.0, "wrecked"), references)
    said = over.over_forgetting
    result = over.measures["accuracy.forget"]
    assert result.estimate and result.reference
    low = chance_range(result.estimate, result.reference)[0]
    assert f"forget accuracy {over.accuracy['forget']:.4g} is below {low:.4g} and mia.over " in said
    assert "wrecked: over-forgets; told from retrained models by memory" in accuracy_table([("wrecked", over)])
    assert measured.over_forgetting == ""
    assert score_model(drawn(1, 0.0), references).over_forgetting == ""
    assert score_model(drawn(1, -3.0)).over_forgetting == ""  # nothing to compare with
    assert "over-forgets" not in accuracy_table([("unlearned", measured)])


def test_lost_retain_accuracy_is_said_in_words(measured: Score) -> None:
    part = Part("accuracy.retain", -8.0, 0.0, True)
    broken = replace(measured, judged=Verdict("different", "told from retrained models by accuracy.retain (p < 0.0001)", parts=(part,)))
    assert accuracy_table([("broken", broken)]).endswith(f"  {LOST}")
    better = replace(measured, judged=Verdict("different", parts=(replace(part, size=8.0),)))
    assert LOST not in accuracy_table([("better", better)])


def test_tables_of_other_requests_are_refused() -> None:
    split = drawn(1).split.copy()
    split[[0, 300]] = split[[300, 0]]
    with pytest.raises(UserError, match="unlearned and retrained do not match: splits differ for 2 images"):
        score_model(drawn(1, name="unlearned"), [replace(drawn(100, name="retrained"), split=split)])


def test_the_alarm_of_several_seeds_is_that_of_their_mean() -> None:
    references = [drawn(100, name="retrained")]
    each = {k: score_model(drawn(k, worse, f"{k}"), references) for k, worse in enumerate((-3.0, -3.0, 3.0))}
    mean = seeds.aggregate(each, {key: {"forget": 80.0} for key in each})
    assert [bool(one.over_forgetting) for one in mean.seeds.values()] == [True, True, False]
    assert mean.alarm == mean.over_forgetting
    assert mean.over_forgetting == "" or mean.over_forgetting.endswith("(so are 2 of 3 seeds)")
    over = seeds.aggregate({0: each[0], 1: each[1]}, {})
    assert over.over_forgetting.endswith("(so are 2 of 2 seeds)")
    assert "wrecked over-forgets: forget accuracy" in accuracy_table([("wrecked", over)])
    assert score_model(drawn(1, -3.0)).alarm is None


def test_score_files_come_back_as_they_were(measured: Score) -> None:
    """The files of several seeds, too, and those of an earlier or a later program."""
    each = {k: score_model(drawn(k, 0.0, f"{k}"), [drawn(100, name="retrained")]) for k in range(3)}
    for score in (measured, replace(seeds.aggregate(each, {k: {"forget": 80.0} for k in each}), tables={"model": "abc"})):
        text = json.dumps(score.to_json(), indent=2)
        assert json.dumps(Score.from_json(json.loads(text), "").to_json(), indent=2) == text
    assert "format" not in measured.to_json()  # files of format 1 keep their bytes
    assert Score.from_json({"accuracy": {"retain": 1}, "gap": 0}, "").accuracy == {"retain": 1.0}
    with pytest.raises(UserError, match=r"^model_1\.json has format 9; this version reads score files up to format 1$"):
        Score.from_json(measured.to_json() | {"format": 9}, "model_1.json")
    wrong: list[Any] = [[], {}, {"accuracy": 1}, {"accuracy": {"retain": "high"}}]
    for content in wrong:
        with pytest.raises(UserError, match=r"^model_1\.json is not a score file: "):
            Score.from_json(content, "model_1.json")
