"""What a score file says, and under which names MLflow hears of it."""

import json
from dataclasses import replace

import pytest

from lethe._util.errors import UserError
from lethe.evaluation import registry
from lethe.evaluation import seed_aggregation as seeds
from lethe.evaluation.catalogue import all_measures
from lethe.reporting.console_tables import accuracy_table
from lethe.workspace import scores as results
from support.tables import drawn


@pytest.fixture(scope="module")
def measured() -> results.Scores:
    return results.measure(drawn(1, 3.0, "unlearned"), [drawn(100, name="retrained")], drawn(50, 3.0, "original"))


def test_every_measure_is_a_number_with_its_interval_or_says_what_is_missing(measured: results.Scores) -> None:
    found = measured["measures"]
    absent = {each.id for each in all_measures() if not any(f"{id_}.".startswith(f"{each.id}.") for id_ in found)}
    assert absent == {"accuracy_of", "seconds", "share_of_retrain", "peak_memory"}  # of whole-class requests; of the machine
    for id_, got in found.items():
        assert got.keys() == {"missing"} or got.keys() - {"reference"} == {"value", "low", "high", "interval"}, id_
        if "value" in got:
            assert got["interval"] == "bootstrap over examples"
    assert found["rmia.gamma_1"] == {"missing": "needs at least 8 retrained models; 1 available"}
    assert (measured["tier"], measured["references"]) == (1, 1)
    assert [registry.highest_tier(n) for n in (0, 1, 7, 8, 63, 64, 100)] == [0, 1, 1, 2, 2, 3, 3]
    assert json.loads(json.dumps(measured)) == measured


def test_the_blocks_that_were_there_before_say_the_same(measured: results.Scores) -> None:
    table = drawn(1, 3.0)
    for number, split in enumerate(results.SPLITS):
        rows = table.split == number
        assert measured["accuracy"][split] == measured["measures"][f"accuracy.{split}"]["value"]
        assert measured["accuracy"][split] == round(100 * float(table.correct[rows].mean()), 6)
        assert measured["loss"][split] == pytest.approx(table.loss[rows].mean(), abs=1e-6)
    assert measured["gap"] == pytest.approx(measured["accuracy"]["retain"] - measured["accuracy"]["forget"], abs=1e-6)


def test_the_references_own_number_stands_beside(measured: results.Scores) -> None:
    alone = results.measure(drawn(100, name="retrained"))["measures"]
    for id_ in ("accuracy.forget", "mia.svc", "mia.over"):
        assert measured["measures"][id_]["reference"] == {key: alone[id_][key] for key in ("value", "low", "high", "interval")}
    assert "reference" not in measured["measures"]["distance.forget"]


def test_names_in_mlflow(measured: results.Scores) -> None:
    told = results.final(measured)
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
    assert told["forget.distance"] == measured["measures"]["distance.forget"]["value"]
    assert results.metric("accuracy_of.forgotten_classes.test") == "test.accuracy_of.forgotten_classes"
    distances = results.distances(measured, results.measure(drawn(100)))
    assert {key: told[key] for key in distances} == pytest.approx(distances, abs=1.1e-6)


def test_the_alarm_rings_for_over_forgetting_alone(measured: results.Scores) -> None:
    references = [drawn(100, name="retrained")]
    over = results.measure(drawn(1, -3.0, "wrecked"), references)
    said = results.over_forgotten(over)
    theirs = over["measures"]["accuracy.forget"]["reference"]
    assert f"forget accuracy {over['accuracy']['forget']:.4g} is below {theirs['low']:.4g} and mia.over " in said
    assert "wrecked over-forgets: forget accuracy" in accuracy_table([("wrecked", over)])
    assert results.over_forgotten(measured) == ""
    assert results.over_forgotten(results.measure(drawn(1, 0.0), references)) == ""
    assert results.over_forgotten(results.measure(drawn(1, -3.0))) == ""  # nothing to compare with
    assert "over-forgets" not in accuracy_table([("unlearned", measured)])


def test_tables_of_other_requests_are_refused() -> None:
    split = drawn(1).split.copy()
    split[[0, 300]] = split[[300, 0]]
    with pytest.raises(UserError, match="unlearned and retrained do not match: splits differ for 2 images"):
        results.measure(drawn(1, name="unlearned"), [replace(drawn(100, name="retrained"), split=split)])


def test_the_alarm_of_several_seeds_is_that_of_their_mean() -> None:
    references = [drawn(100, name="retrained")]
    each = {k: results.measure(drawn(k, worse, f"{k}"), references) for k, worse in enumerate((-3.0, -3.0, 3.0))}
    mean = seeds.together(each, {key: {"forget": 80.0} for key in each}, results.over_forgotten)
    assert [bool(one["over_forgetting"]) for one in mean["seeds"].values()] == [True, True, False]
    assert results.alarm(mean) == results.over_forgotten(mean)
    assert results.over_forgotten(mean) == "" or results.over_forgotten(mean).endswith("(so are 2 of 3 seeds)")
    over = seeds.together({0: each[0], 1: each[1]}, {}, results.over_forgotten)
    assert results.over_forgotten(over).endswith("(so are 2 of 2 seeds)")
    assert "wrecked over-forgets: forget accuracy" in accuracy_table([("wrecked", over)])
    assert results.alarm(results.measure(drawn(1, -3.0))) is None
