"""The registry: every measure is moved by a planted fault, sees nothing where there is nothing, and says what it lacks."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from lethe._util.errors import InsufficientData, UserError
from lethe.evaluation import catalogue, measures, registry
from lethe.evaluation.catalogue import all_measures, measure_model, measure_references
from lethe.evaluation.context import Cost, EvaluationContext
from lethe.evaluation.logits_table import Ints, LogitsTable
from lethe.evaluation.registry import Measure, register_measure
from lethe.evaluation.uncertainty import EXAMPLES, SHARE, Estimate
from lethe.testing import MeasureContract
from lethe.testing.contexts import LEAK, context, of_others
from lethe.testing.tables import SIZES, bank, drawn, lower_tiers, of_phi

BY_ID = {each.id: each for each in all_measures()}


@pytest.fixture(autouse=True)
def small_banks(monkeypatch: pytest.MonkeyPatch) -> None:
    lower_tiers(monkeypatch, 3, 6)


# measure -> the parts that must move when forget is remembered, and which way
MOVED: dict[str, dict[str, int]] = {
    "accuracy": {"forget": 1},
    "distance": {"forget": 1},
    "mia.loss": {"": 1},
    "mia.svc": {"": -1},
    "mia.over": {"": -1},
    "avg_gap.svc": {"": 1},
    "avg_gap.of_means": {"": 1},
    "avg_gap.rmia": {"": 1},
    "tow": {"": -1},
    "kl_to_reference": {"forget": 1},
    "js_to_reference": {"forget": 1},
    "rmia.gamma_1": {"auc": 1},
    "rmia.gamma_2": {"auc": 1},
    "probe.excess": {"": 1},
    "residual": {"0.01": 1, "0.03": 1, "0.06": 1},
    "cka": {"forget": -1, "test": -1},
    "iam": {"mean": -1, "below_half": 1},
    "relearn": {"": -1},
    "klom": {"forget": 1, "reversed.forget": 1},
    "epsilon": {"mean": 1},
    "neurips": {"": -1},
    "ulira": {"balanced_accuracy": 1, "auc": 1},
    "swap.advantage": {"": 1},
}
OTHERWISE = {"accuracy_of", "seconds", "flops", "share_of_retrain", "peak_memory"}  # tests of their own


def test_every_measure_has_a_planted_fault() -> None:
    assert {each.id for each in all_measures()} == set(MOVED) | OTHERWISE
    assert len(BY_ID) == len(all_measures())


def test_parts_are_declared(forgotten_and_remembered: tuple[dict[str, Estimate], dict[str, Estimate]]) -> None:
    declared = {f"{each.id}.{part}".rstrip(".") for each in all_measures() for part in each.parts or ("",)}
    found = set(forgotten_and_remembered[0])
    assert found <= declared
    assert {id_.split(".")[0] for id_ in declared - found} == {"accuracy_of"}  # of whole-class requests alone


@pytest.fixture(scope="module")
def forgotten_and_remembered() -> tuple[dict[str, Estimate | str], dict[str, Estimate | str]]:
    with pytest.MonkeyPatch.context() as patch:
        lower_tiers(patch, 3, 6)
        return measure_model(context(0.0)), measure_model(context(LEAK))


class TestMeasures(MeasureContract):
    """Every measure but those of `OTHERWISE`."""

    @pytest.fixture(scope="class", params=MOVED)
    @classmethod
    def measure(cls, request: pytest.FixtureRequest) -> Measure:
        return BY_ID[request.param]

    @pytest.fixture(scope="class")
    @classmethod
    def moved(cls, measure: Measure) -> dict[str, int]:
        return MOVED[measure.id]


def test_where_nothing_is_remembered_every_measure_is_at_its_aim(
    forgotten_and_remembered: tuple[dict[str, Estimate], dict[str, Estimate]],
) -> None:
    clean, leaking = forgotten_and_remembered
    assert clean["distance.forget"].low <= 0 <= clean["distance.forget"].high  # type: ignore[operator]
    assert clean["mia.loss"].low <= 50 <= clean["mia.loss"].high  # type: ignore[operator]
    assert clean["rmia.gamma_1.auc"].low <= 0.5 <= clean["rmia.gamma_1.auc"].high  # type: ignore[operator]
    assert clean["ulira.auc"].low <= 0.5 <= clean["ulira.auc"].high  # type: ignore[operator]
    assert clean["swap.advantage"].value < 0.15 < leaking["swap.advantage"].value
    assert clean["tow"].value > 0.9
    assert clean["avg_gap.svc"].value < 4 < leaking["avg_gap.svc"].value


def test_over_forgetting_is_told_apart_from_forgetting() -> None:
    over = measure_model(context(-2.0), [BY_ID["mia.over"], BY_ID["distance"]])
    clean = measure_model(context(0.0), [BY_ID["mia.over"], BY_ID["distance"]])
    for key, way in (("mia.over", 1), ("distance.forget", -1)):
        worse, good = over[key], clean[key]
        assert isinstance(worse, Estimate) and isinstance(good, Estimate)
        assert way * (worse.value - good.value) > 0 and not worse.overlaps(good)


# --- second ways to compute them ------------------------------------------------------------------------------------------


def test_a_model_that_did_nothing_is_as_far_as_the_original_from_the_reference() -> None:
    original, reference = drawn(50, LEAK, "original"), drawn(100)
    found = measure_model(EvaluationContext(replace(original, name="did nothing"), [reference], original))
    for split in ("retain", "forget", "validation", "test"):
        here, there = (100 * np.mean(table.correct[table.rows(split)]) for table in (original, reference))
        assert value(found, f"accuracy.{split}") == pytest.approx(here)
        assert value(found, f"distance.{split}") == pytest.approx(here - there)
    gaps = [abs(value(found, f"distance.{split}")) for split in ("retain", "forget", "test")]
    assert value(found, "tow") == pytest.approx(math.prod(1 - gap / 100 for gap in gaps))
    assert value(found, "avg_gap.svc") == pytest.approx(
        np.mean([*gaps, abs(value(found, "mia.svc") - value(measure_model(EvaluationContext(reference)), "mia.svc"))])
    )


def test_both_average_gaps_of_several_seeds_and_what_as_many_retrained_models_score() -> None:
    models, references = bank(2, 0.0, 300, "unlearned"), bank(4)
    of = EvaluationContext(models[0], references, unlearned=models)
    found, floor = measure_model(of, [BY_ID["avg_gap.of_means"]])["avg_gap.of_means"], measure_references(of)["avg_gap.of_means"]
    runs = [measure_model(replace(of, model=model, unlearned=())) for model in models]
    theirs = [measure_model(EvaluationContext(each)) for each in references]
    gaps = [
        [value(run, id_) - np.mean([value(one, id_) for one in theirs]) for run in runs]
        for id_ in ("accuracy.forget", "accuracy.retain", "accuracy.test", "mia.svc")
    ]
    assert isinstance(found, Estimate) and found.value == pytest.approx(np.mean(np.abs(np.mean(gaps, axis=1))))
    assert found.value <= np.mean([value(run, "avg_gap.svc") for run in runs])  # the mean of per-run gaps is the larger one
    groups = [
        measure_model(EvaluationContext(ours[0], others, unlearned=ours, resample=False), [BY_ID["avg_gap.of_means"]])
        for ours, others in ((references[:2], references[2:]), (references[2:], references[:2]))
    ]
    assert floor.value == pytest.approx(np.mean([value(one, "avg_gap.of_means") for one in groups])) and floor.models == 2
    assert runs[0]["avg_gap.of_means"] == "needs several models of the method (run.seeds)"
    assert "avg_gap.of_means" not in measure_references(replace(of, unlearned=[*models, *models]))  # no two groups of four


def test_floors_of_the_gap_with_rmia_and_of_the_tug_of_war() -> None:
    sizes, asked = (40, 30, 40, 30), [replace(BY_ID[id_], min_references=1) for id_ in ("tow", "rmia.gamma_1", "distance")]
    references = [drawn(100 + seed, sizes=sizes) for seed in range(8)]
    floors = measure_references(EvaluationContext(drawn(1, sizes=sizes), references, resample=False))
    each = [measure_model(one, asked) for one in EvaluationContext(references[0], references, resample=False).leave_one_out()]
    assert floors["tow"].value == pytest.approx(np.mean([value(one, "tow") for one in each])) and floors["tow"].models == 8
    auc = np.array([100 * value(one, "rmia.gamma_1.auc") for one in each])
    gaps = [[abs(value(one, f"distance.{split}")) for split in ("forget", "retain", "test")] for one in each]
    expected = [np.mean([*three, abs(auc[k] - np.delete(auc, k).mean())]) for k, three in enumerate(gaps)]
    assert floors["avg_gap.rmia"].value == pytest.approx(np.mean(expected))
    exact = [measures.avg_gap_rmia(one).value for one in EvaluationContext(references[0], references, resample=False).leave_one_out()]
    assert floors["avg_gap.rmia"].value == pytest.approx(np.mean(exact), rel=0.1)  # of eight models, by N (N - 1) attacks


def test_a_reference_beside_itself_is_at_every_aim() -> None:
    reference = drawn(100)
    found = measure_model(EvaluationContext(replace(reference, name="same"), [reference], drawn(50, LEAK)))
    assert [value(found, f"distance.{split}") for split in ("retain", "forget", "test")] == [0, 0, 0]
    assert (value(found, "tow"), value(found, "avg_gap.svc")) == (1, 0)
    for divergence in ("kl_to_reference", "js_to_reference"):
        assert value(found, f"{divergence}.forget") == pytest.approx(0, abs=1e-12)


def test_divergences_by_hand() -> None:
    generator = np.random.default_rng(0)
    tables = [replace(drawn(n), logits=generator.normal(0, 2, (840, 4)).astype(np.float32)) for n in range(3)]
    found = measure_model(EvaluationContext(tables[0], tables[1:]))
    for split in ("forget", "test"):
        kl, js = [], []
        for row in tables[0].rows(split):
            p, *others = (
                [math.exp(z) / sum(map(math.exp, table.logits[row].tolist())) for z in table.logits[row].tolist()] for table in tables
            )
            q = [sum(column) / 2 for column in zip(*others, strict=True)]
            kl.append(sum(b * math.log(b / a) for a, b in zip(p, q, strict=True)))
            entropy = [-sum(x * math.log(x) for x in each) for each in (p, q, [(a + b) / 2 for a, b in zip(p, q, strict=True)])]
            js.append(entropy[2] - (entropy[0] + entropy[1]) / 2)
        assert value(found, f"kl_to_reference.{split}") == pytest.approx(np.mean(kl), rel=1e-5)
        assert value(found, f"js_to_reference.{split}") == pytest.approx(np.mean(js), rel=1e-5)


def test_on_gaussians_mia_over_is_the_normal_integral() -> None:
    sizes = (10, 9000, 10, 9000)
    generator = np.random.default_rng(0)
    table = of_phi(generator.normal(np.repeat([0.0, 1.2, 0.0, 0.3], sizes), 0.8), sizes=sizes)
    over = BY_ID["mia.over"](EvaluationContext(table))
    assert not isinstance(over, str)
    assert over[""].value == pytest.approx(norm.cdf((0.3 - 1.2) / (0.8 * math.sqrt(2))), abs=0.01)
    # the interval is as wide as that of Hanley and McNeil (1982) for so many images
    auc = over[""].value
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    half = 1.96 * math.sqrt((auc * (1 - auc) + 8999 * (q1 - auc**2 + q2 - auc**2)) / 9000**2)
    assert over[""].high - over[""].low == pytest.approx(2 * half, rel=0.15)  # type: ignore[operator]


def test_relearning_counts_steps_until_within_a_point_of_the_original() -> None:
    assert measures.relearn_steps([80.0, 90.0, 96.9, 97.0, 99.0], 98.0) == 3
    assert measures.relearn_steps([99.0, 80.0], 98.0) == 0
    with pytest.raises(InsufficientData, match="more than 2 optimizer steps"):
        measures.relearn_steps([80.0, 90.0, 96.9], 98.0)


def test_exactly_one_point_below_the_original_is_within_one_point() -> None:
    """Of 100 images: in binary, some of these differences are more than 1."""
    for right in range(1, 101):
        percent = [100 * float((np.arange(100) < count).mean()) for count in (right - 1, right)]
        assert measures.relearn_steps(percent, percent[1]) == 0
    with pytest.raises(InsufficientData):
        measures.relearn_steps([100 * 98_999 / 100_000], 100.0)


def test_perturbed_copies_of_a_sample_by_hand() -> None:
    """Over the images that every table holds, shares of each table's own number of copies."""
    whole = context(LEAK, 3)
    forget = whole.rows("forget")
    few, fewer, draws = np.sort(forget[::2]), np.sort(forget[::4]), {"model": 4, "reference": 1}

    def sampled(table: LogitsTable, rows: Ints, number: int) -> LogitsTable:
        kept = np.zeros(len(table.ids), np.uint8)
        kept[rows] = number
        counts = table.columns["residual"] * kept[:, None] // 16
        return replace(table, columns={**table.columns, "residual": counts, "residual_draws": kept})

    model, reference = sampled(whole.model, few, draws["model"]), sampled(whole.references[0], fewer, draws["reference"])
    found = BY_ID["residual"](EvaluationContext(model, [reference, whole.references[1]]))
    assert isinstance(found, dict)
    for number, tau in enumerate(("0.01", "0.03", "0.06")):
        own = [model.columns["residual"][row, number] / draws["model"] for row in fewer]
        theirs = [reference.columns["residual"][row, number] / draws["reference"] for row in fewer]
        all_copies = [whole.references[1].columns["residual"][row, number] / 16 for row in fewer]
        assert found[tau].value == pytest.approx(2 * sum(own) / (sum(theirs) + sum(all_copies)))
    tables = (whole.model, sampled(whole.model, fewer, 16))
    full, quarter = (measures.residual(EvaluationContext(each, whole.references))["0.06"] for each in tables)
    assert np.ptp(quarter.ends()) > 1.5 * np.ptp(full.ends())  # a quarter of the images


def test_cost() -> None:
    cost = [BY_ID[id_] for id_ in ("seconds", "flops", "share_of_retrain", "peak_memory")]
    found = measure_model(context(0.0), cost)
    assert [value(found, each.id) for each in cost] == [2.0, 3e9, 0.1, 1000]
    found = measure_model(context(0.0, cost=Cost(2.0)), cost)
    assert value(found, "seconds") == 2.0
    assert found["flops"] == "needs the counted work of unlearning"
    assert found["share_of_retrain"] == "needs the counted work of unlearning and of retraining"
    assert isinstance(found["peak_memory"], str)


# --- what holds for all -----------------------------------------------------------------------------------------------------


def permuted(table: LogitsTable, order: np.ndarray) -> LogitsTable:
    columns = {name: column[order] for name, column in table.columns.items()}
    ids = tuple(table.ids[i] for i in order)
    return LogitsTable(table.name, ids, table.labels[order], table.split[order], table.logits[order], columns)


@settings(max_examples=2)
@given(st.integers(0, 1000))
def test_permuting_examples_changes_nothing(seed: int) -> None:
    order = np.random.default_rng(seed).permutation(sum(SIZES))
    whole = context(1.0, models=3, resample=False, unlearned=())
    mixed = replace(
        whole,
        model=permuted(whole.model, order),
        references=[permuted(reference, order[::-1]) for reference in whole.references],
        original=whole.original and permuted(whole.original, order),
    )
    assert measure_model(mixed) == measure_model(whole)


@given(st.floats(0.1, 8.0))
def test_scaling_all_logits_changes_no_accuracy(factor: float) -> None:
    table = drawn(1, 1.0)
    scaled = replace(table, logits=table.logits * np.float32(factor))
    ids = [BY_ID["accuracy"]]
    assert measure_model(EvaluationContext(scaled, resample=False), ids) == measure_model(EvaluationContext(table, resample=False), ids)


def test_a_score_made_again_is_the_same_score(
    forgotten_and_remembered: tuple[dict[str, Estimate], dict[str, Estimate]],
) -> None:
    asked = [each for each in all_measures() if each.id not in ("epsilon", "neurips")]  # which draw nothing but the mean's resamples
    assert measure_model(context(LEAK), asked).items() <= forgotten_and_remembered[1].items()


def test_every_measure_has_its_place_in_the_order() -> None:
    assert {*catalogue.ORDER} == BY_ID.keys() and len(catalogue.ORDER) == len(BY_ID)


def test_tables_of_other_images_are_refused() -> None:
    other = replace(drawn(3, name="other"), ids=tuple(f"x{n}" for n in range(sum(SIZES))))
    with pytest.raises(UserError, match="unlearned and other do not match: 1680 images"):
        EvaluationContext(drawn(1, name="unlearned"), [other])


# --- tiers -----------------------------------------------------------------------------------------------------------------


def test_a_measure_whose_tier_is_not_met_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    alone, one = (
        measure_model(EvaluationContext(drawn(1), resample=False)),
        measure_model(EvaluationContext(drawn(1), [drawn(100)], resample=False)),
    )
    assert alone["distance"] == "needs at least 1 retrained model; 0 available"
    assert alone["iam"] == "needs at least 1 retrained model; 0 available"
    assert one["iam"] == "needs the original's logits table"
    assert one["rmia.gamma_1"] == one["avg_gap.rmia"] == "needs at least 8 retrained models; 1 available"
    assert one["klom"] == "needs at least 64 retrained and 64 unlearned models; 1 and 1 available"
    assert one["probe.excess"] == "needs logits tables with the column probe, of models that end in a linear layer"
    assert one["swap.advantage"] == "needs a second original and the model that forgot other images from it (evaluate.swap)"
    assert one["ulira"] == "needs at least 64 models unlearned on other requests (evaluate.shadows); 0 available"
    few = drawn(1)
    few = replace(few, columns=of_others(few, 0.0))
    assert (
        measure_model(EvaluationContext(few, resample=False))["ulira"]
        == "needs at least 64 models unlearned on other requests (evaluate.shadows); 24 available"
    )
    for found in (alone, one):
        for id_, said in found.items():
            assert isinstance(said, Estimate) or id_ in BY_ID


def test_too_few_images_are_said_and_not_scored() -> None:
    sizes = (20, 3, 20, 20)
    found = measure_model(
        EvaluationContext(of_phi(np.random.default_rng(0).normal(size=63), sizes=sizes), [of_phi(np.zeros(63), sizes=sizes)])
    )
    assert found["mia.loss"] == "needs at least 10 forget and 10 held-out images; 3 and 3 available"
    assert value(found, "distance.forget") <= 0
    sizes = (20, 12, 20, 0)
    found = measure_model(EvaluationContext(of_phi(np.zeros(52), sizes=sizes), [of_phi(np.zeros(52), sizes=sizes)]))
    assert found["mia.over"] == found["mia.svc"] == found["tow"] == "needs test images; the split is empty"
    assert value(found, "distance.validation") == 0 and "accuracy.test" not in found
    one = measure_model(EvaluationContext(of_phi(np.zeros(43), sizes=(20, 1, 11, 11))))
    forget = one["accuracy.forget"]
    assert isinstance(forget, Estimate) and (forget.value, forget.high, forget.interval) == (100.0, 100.0, SHARE)
    assert forget.low == pytest.approx(2.5)
    assert "accuracy.validation" in one


# --- the reference's own value ----------------------------------------------------------------------------------------------


def test_what_the_references_score_one_and_several() -> None:
    single = measure_references(EvaluationContext(drawn(1, LEAK), [drawn(100)], drawn(50, LEAK)))
    alone = measure_model(EvaluationContext(drawn(100)))
    assert single["mia.svc"] == alone["mia.svc"] and single["accuracy.forget"] == alone["accuracy.forget"]
    assert (single["accuracy.forget"].interval, single["mia.over"].interval) == (SHARE, EXAMPLES)
    assert not [id_ for id_ in single if id_.startswith(("kl", "iam", "rmia", "distance"))]
    several = measure_references(context(LEAK))
    values = [100 * np.mean(table.correct[table.rows("forget")]) for table in bank(6)]
    assert several["accuracy.forget"].value == pytest.approx(np.mean(values))
    assert (several["accuracy.forget"].models, several["accuracy.forget"].interval) == (6, "Student-t over seeds")
    assert 0.4 < several["rmia.gamma_1.auc"].value < 0.6
    assert 0 < several["kl_to_reference.forget"].value < value(measure_model(context(LEAK)), "kl_to_reference.forget")
    assert {"iam.mean", "iam.below_half", "probe.excess"} <= set(several)
    assert not [id_ for id_ in several if id_.startswith(("distance", "seconds"))]
    halves = measure_model(EvaluationContext(bank(6)[0], bank(6)[3:], unlearned=bank(6)[:3]), [replace(BY_ID["klom"], min_references=3)])
    assert several["klom.forget"] == halves["klom.forget"]


def test_each_reference_is_held_out_of_its_own_bank() -> None:
    whole = context(0.0)
    for one, reference in zip(whole.leave_one_out(), whole.references, strict=True):
        assert one.model is reference
        assert len(one.references) == 5 and not any(other is reference for other in one.references)


def test_several_seeds_make_a_mean_with_students_interval() -> None:
    asked = [BY_ID["mia.loss"], BY_ID["klom"]]
    seeds = [measure_model(EvaluationContext(drawn(seed, 1.0), [drawn(100)], resample=False), asked) for seed in (1, 2, 3)]
    found = catalogue.over_seeds(seeds)
    assert value(found, "mia.loss") == pytest.approx(np.mean([value(each, "mia.loss") for each in seeds]))
    assert found["klom"] == seeds[0]["klom"]
    assert found["mia.loss"].models == 3  # type: ignore[union-attr]


# --- whole-class requests ---------------------------------------------------------------------------------------------------


def whole_class(leak: float, seed: int = 1) -> LogitsTable:
    """Classes 0 and 1 are forgotten as a whole, three times as many of 0; the classes differ in how hard they are."""
    labels = np.concatenate([np.arange(240) % 2 + 2, np.repeat([0, 0, 0, 1], 50), np.arange(200) % 4, np.arange(200) % 4])
    phi = np.random.default_rng(seed).normal(0, 1, 840) + np.array([-3.0, -1.0, 2.0, 2.0])[labels]
    return of_phi(phi + np.repeat([2.0, leak, 0.0, 0.0], SIZES), labels=labels)


def test_a_forgotten_class_is_compared_with_its_own_held_out_images() -> None:
    asked = [BY_ID[id_] for id_ in ("mia.loss", "mia.over", "accuracy_of")]
    found, remembered = (measure_model(EvaluationContext(whole_class(leak)), asked) for leak in (0.0, 3.0))
    assert value(found, "mia.over") == pytest.approx(0.5, abs=0.12)
    assert value(remembered, "mia.over") < 0.1
    assert found["mia.loss"].ends()[0] <= 50 <= found["mia.loss"].ends()[1]  # type: ignore[union-attr]
    assert value(remembered, "mia.loss") > 80
    table = whole_class(0.0)
    for split, number in (("validation", 2), ("test", 3)):
        for name, of in (("retained_classes", table.labels > 1), ("forgotten_classes", table.labels < 2)):
            rows = (table.split == number) & of
            assert value(found, f"accuracy_of.{name}.{split}") == pytest.approx(100 * table.correct[rows].mean())


@pytest.mark.parametrize("stray", [0, 1])
def test_a_stray_image_of_each_other_class_changes_nothing(stray: int) -> None:
    """Class 0 is harder than the others, so a model that never saw it has a higher loss on it than on an unweighted test set."""
    forgotten = np.repeat([0, 1, 2, 3], [200 - 3 * stray, stray, stray, stray])
    labels = np.concatenate([np.arange(240) % 4, forgotten, np.arange(200) % 4, np.arange(200) % 4])
    phi = np.random.default_rng(0).normal(0, 1, 840) + np.array([-3.0, 0.0, 1.0, 2.0])[labels] + np.repeat([2.0, 0.0, 0.0, 0.0], SIZES)
    found = measure_model(EvaluationContext(of_phi(phi, labels=labels), resample=False), [BY_ID["mia.over"], BY_ID["mia.loss"]])
    assert value(found, "mia.over") == pytest.approx(0.5, abs=0.1)  # 0.86 without weights
    assert value(found, "mia.loss") == pytest.approx(50.0, abs=10.0)


def test_a_random_request_has_no_accuracies_by_class() -> None:
    assert measure_model(context(0.0), [BY_ID["accuracy_of"]]) == {}


def test_half_a_class_is_weighed_too_though_retain_still_holds_it() -> None:
    table = whole_class(0.0)
    labels = np.concatenate([np.arange(240) % 4, table.labels[240:]])
    found = measure_model(EvaluationContext(replace(table, labels=labels)), [BY_ID["mia.over"], BY_ID["accuracy_of"]])
    assert value(found, "mia.over") == pytest.approx(0.5, abs=0.12)
    assert list(found) == ["mia.over"]


# --- the list ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def registrations(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry, "_REGISTERED", {each.id: each for each in all_measures()})


@pytest.mark.usefixtures("registrations")
def test_a_measure_is_declared_and_registered_in_one_place() -> None:
    @register_measure(id="loss.forget", about="mean loss on forget, in nats")
    def forget_loss(context: EvaluationContext) -> Estimate:
        return context.mean(context.model.loss[context.rows("forget")])

    whole = EvaluationContext(drawn(1), [drawn(100)])
    assert value(measure_model(whole), "loss.forget") == pytest.approx(drawn(1).loss[240:440].mean())
    assert measure_references(whole)["loss.forget"].value == pytest.approx(drawn(100).loss[240:440].mean())
    assert all_measures()[-1].id == "loss.forget"
    assert forget_loss(whole) == all_measures()[-1].function(whole)  # the function stays an ordinary one


@pytest.mark.usefixtures("registrations")
def test_an_id_is_registered_once_and_needs_are_known() -> None:
    with pytest.raises(
        UserError,
        match=r"^measure tow is registered twice: by lethe\.evaluation\.measures:tow and by lethe\.evaluation\.measures:distance$",
    ):
        register_measure(id="tow", about="")(measures.distance)
    with pytest.raises(UserError, match=r"^measure other: needs names shadow; it takes original, swapped, shadows, .*, unlearned$"):
        register_measure(id="other", about="", needs=("shadow",))
    register_measure(id="tow", about="again")(measures.tow)  # a module that is reloaded
    assert next(each for each in all_measures() if each.id == "tow").about == "again"


OUTSIDE = """
import lethe

@lethe.register_measure(id="entropy.forget", about="mean entropy on forget, in nats")
def entropy(context):
    log_p = context.model.log_softmax(context.rows("forget"))
    return context.mean(-(2.718281828459045**log_p * log_p).sum(axis=1))

def plain(context):
    return 0
"""


@pytest.mark.usefixtures("registrations")
def test_a_measure_of_another_package_is_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_by_hand.py").write_text(OUTSIDE)
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.load("named_by_hand:entropy")
    assert 0 < value(measure_model(EvaluationContext(drawn(1)), all_measures()[-1:]), "entropy.forget") < math.log(4)
    with pytest.raises(UserError, match=r"^run.measures is 'named_by_hand:plain'; it takes package.module:function"):
        registry.load("named_by_hand:plain")
    said = r"^run.measures is 'nowhere:entropy': ModuleNotFoundError: No module named 'nowhere'; \S.* and PYTHONPATH have no nowhere$"
    with pytest.raises(UserError, match=said):
        registry.load("nowhere:entropy")


@pytest.mark.usefixtures("registrations")
def test_a_measure_of_an_installed_package_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "with_entry_point.py").write_text(OUTSIDE)
    folder = tmp_path / "with_entry_point-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: with-entry-point\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[lethe.measures]\nentropy = with_entry_point:entropy\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry.find_installed.cache_clear()
    assert all_measures()[-1].id == "entropy.forget"


def value(found: dict[str, Estimate | str], id_: str) -> float:
    got = found[id_]
    assert isinstance(got, Estimate), (id_, got)
    return got.value
