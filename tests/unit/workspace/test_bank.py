"""What scores beside a bank say of a leak, and what they don't."""

import pytest

from lethe.evaluation.score import Score, score_model
from lethe.testing import tables


@pytest.fixture(scope="module")
def leaks() -> dict[str, Score]:
    """A retrained model, the original and a method of several seeds beside a bank."""
    with pytest.MonkeyPatch.context() as patch:
        tables.lower_tiers(patch, 4, 16)
        references = tables.bank(32)
        originals = tables.bank(16, 3.0, 500, "original")
        held_out = tables.drawn(77, 0.0, "retrained")
        return {
            "held out": score_model(held_out, references, originals[0], [held_out, *tables.bank(15, 0.0, 700)]),
            "original": score_model(originals[0], references, originals[0], originals),
            "one": score_model(held_out, references, originals[0]),
        }


def test_a_bank_in_two_shows_no_leak_and_the_original_one(leaks: dict[str, Score]) -> None:
    retrained, original = (leaks[which].to_json()["measures"] for which in ("held out", "original"))
    assert retrained["rmia.gamma_1.auc"]["low"] < 0.5 < retrained["rmia.gamma_1.auc"]["high"]
    assert original["rmia.gamma_1.auc"]["low"] > 0.6
    for id_ in ("klom.forget", "epsilon.mean"):
        halves = retrained[id_]["reference"]["value"]
        assert abs(retrained[id_]["value"] - halves) < (original[id_]["value"] - halves) / 2, id_
    assert original["neurips"]["value"] < retrained["neurips"]["value"] / 2
    assert not leaks["held out"].over_forgetting
    assert {name: made.tier for name, made in leaks.items()} == {"held out": 3, "original": 3, "one": 2}
    assert leaks["one"].to_json()["measures"]["klom"] == {
        "missing": "needs at least 16 retrained and 16 unlearned models; 32 and 1 available"
    }


def test_chance_between_models_rings_no_alarm() -> None:
    """Student's interval of a mean of 64 is narrow; a single model varies as much as models do."""
    references = tables.bank(20)
    rung = sum(bool(score_model(tables.drawn(1000 + n, 0.0, "u"), references).over_forgetting) for n in range(10))
    assert rung <= 2
    assert score_model(tables.drawn(1, -3.0, "wrecked"), references).over_forgetting
