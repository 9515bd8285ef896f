"""The arithmetic is what its declared number says: what is computed here equals what was computed when the number was declared.

Where a test fails, either the change should not have altered results, or the number in numerics.py is to be raised (results made before
are then made again) and the file renewed, which is refused while the number is the old one:
`PYTHONPATH=tests python tests/contract/test_golden.py`. The same command adds the numbers of a new method.
Compared within 0.02 % of what moved: other processors sum in another order, other arithmetic differs by far more. Such an order can
also put a unit whose input is next to 0 on the other side of its ReLU, which moves a run by up to 0.08 % (seen with instruction sets from
SSE 4.1 to AVX-512, in one run of 44 each): so up to two runs of the engine may differ by as much as 0.1 %."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lethe.data import shadow_splits, splits
from lethe.data.images import Images
from lethe.data.request import DeletionRequest
from lethe.engine import engine
from lethe.engine import stacked_models as stack
from lethe.engine.frozen_prefix import Prefix
from lethe.engine.options import RunOptions
from lethe.evaluation import inference as predict
from lethe.evaluation import representations as features
from lethe.evaluation import uncertainty as intervals
from lethe.evaluation.score import score_model
from lethe.evaluation.verdict import accuracies as judge
from lethe.recipes.optimizers import SGD
from lethe.recipes.recipe import Augment, Phase, Recipe, Term
from lethe.recipes.registry import registered_names
from lethe.recipes.schedules import Cosine, OneCycle
from lethe.recipes.unseen_losses import ByForgetting
from lethe.testing import tables
from lethe.testing.small_runs import images, network, small
from lethe.workspace import numerics
from lethe.workspace import read_model as reading

METHODS = registered_names(chains=False)

TOLERANCE = 2e-4  # relative: the order of sums
FLIPPED = 1e-3  # relative: that, and a unit that is on the other side of its ReLU
MOST_FLIPPED = 2  # runs
GOLDEN = Path(__file__).parents[1] / "golden"
Numbers = dict[str, Any]

SCRATCH: Recipe = (
    Phase("train", 2, (Term("retain"),), 8, OneCycle(0.1), optimizer=SGD(0.9, 5e-4), augment=Augment(2, True), lr_steps="batch"),
    Phase("anneal", 1, (Term("retain"),), 8, Cosine(0.01), augment=Augment(0, True)),
)


def summary(values: Any) -> list[float]:
    """Size, and two sums that see every entry and its place."""
    flat = np.asarray(values, np.float64).ravel()
    return [float(np.abs(flat).sum()), float(flat @ np.cos(np.arange(len(flat)) + 1.0))]


def moved(recipe: Recipe, **options: Any) -> Numbers:
    model, before = network(), {name: value.clone() for name, value in network().state_dict().items()}
    for _ in engine.run(recipe, model, images(), RunOptions(seed=3, random_init=network(), **options)):  # as it was when they were recorded
        pass
    return {name: summary((value - before[name]).numpy()) for name, value in model.state_dict().items() if value.is_floating_point()}


def of_engine() -> Numbers:
    torch.set_num_threads(1)
    found = {method: moved(small(method)) for method in METHODS if method != "lethe"}
    own = partial(small, "lethe", pull_from=0.4, renew_every=0.15, focus=0.0)  # its settings when the number was declared
    found["lethe"] = moved(own(pull_on="loss", weight=0.1, fade=0.0, reinit=()))
    found["lethe on log odds"] = moved(own(weight=1.0))
    (phase,) = small("falw")
    assert isinstance(phase, Phase)
    forget, *others = phase.terms
    found["falw"] = moved((replace(phase, terms=(replace(forget, loss=ByForgetting()), *others)),))  # its formula then
    found["falw with the exponent on tanh"] = moved((phase,))
    found["from scratch"] = moved(SCRATCH)
    found["frozen layers once"] = moved(small("hybrid_3", batchnorm="eval_frozen"), step_inputs=Prefix(64))
    several = stack.stacked([network(), network(1)])
    for _ in engine.run(SCRATCH, several, images(), RunOptions(seed=3, step_inputs=stack.Stack((3, 4)))):
        pass
    found["two at once"] = {name: summary(value) for name, value in several.state_dict().items() if value.is_floating_point()}
    return found


def of_reading() -> Numbers:
    torch.set_num_threads(1)
    data = images()
    index = torch.arange(len(data.labels_N))
    logits, vectors = predict.logits_and_features(network(), data, index)
    assert vectors is not None
    retain = data.splits["retain"].numpy()
    ids = [f"train/{number}" for number in range(8)]
    phase = Phase("relearn", 4, (Term("forget"),), 8, Cosine(0.1), optimizer=SGD(0.0, 0.0))
    return {
        "logits": summary(logits.numpy()),
        "features": summary(vectors.numpy()),
        "probe": summary(features.probe(vectors.numpy(), data.labels_N.numpy(), retain, 10)),
        "perturbed": summary(predict.perturbed(network(), data, index[:8], ids, (0.01, 0.3)).numpy()),
        "relearned": summary(reading.relearn(network(), data, (phase,))),
    }


def of_splits() -> Numbers:
    pixels = np.zeros((90, 3, 8, 8), np.uint8)
    ids = tuple(f"{'train' if n < 60 else 'test'}/{n}" for n in range(90))
    source = Images(pixels, np.arange(90) % 3, ids, ("a", "b", "c"), 30)
    drawn = splits.draw(source, DeletionRequest(fraction=0.2), 42)
    other = shadow_splits.swapped(drawn, source)
    return {name: index.tolist() for name, index in drawn.items()} | {
        "swapped": other["forget"].tolist(),
        "halved": [half.tolist() for half in shadow_splits.halved(drawn, source, 3)],
        "by class": splits.draw(source, DeletionRequest(classes=("b",)), 1)["forget"].tolist(),
    }


def of_measures() -> Numbers:
    model, original = tables.drawn(1, 1.0, "model"), tables.drawn(2, 3.0, "original")
    one = score_model(model, [tables.drawn(3, 0.0, "retrained")], original).to_json()
    several = score_model(model, tables.bank(64), original, [model, *tables.bank(63, 1.0, 500, "model")]).to_json()
    scored = {"one reference": one, "a bank": several}
    parts = ("value", "low", "high")
    return {
        name: {key: measured[key] for key in ("accuracy", "loss", "gap", "verdict")}
        | {key: measured["judged"][key] for key in ("memory_left", "parts")}
        | {id_: [got[part] for part in parts if part in got] for id_, got in measured["measures"].items() if "value" in got}
        for name, measured in scored.items()
    }


def of_report() -> Numbers:
    sizes = {"retain": 240, "forget": 200, "validation": 200, "test": 200}
    rows = {
        name: dict(zip(sizes, values, strict=True))
        for name, values in {
            "original": (100.0, 99.0, 85.0, 86.0),
            "retrained": (100.0, 84.0, 84.0, 85.0),
            "model_1": (100.0, 97.0, 84.0, 85.0),
            "model_4": (99.0, 85.0, 83.0, 84.0),
            "hybrid_1": (80.0, 40.0, 70.0, 69.0),
        }.items()
    }
    reading_ = judge.ResultSet("independent", "", "", sizes, rows)
    seeds = {name: {seed: _of_seed(row, seed * len(name)) for seed in range(4)} for name, row in rows.items()}
    several = replace(reading_, by_seed=seeds)
    return {
        "kinds": {name: getattr(judge.assess(reading_, name), "kind", None) for name in rows},
        "chance": {name: list(reading_.by_chance(name, "forget")) for name in rows},
        "neighbours": [
            [one.points, one.half_width, one.p, one.adjusted]
            for one in judge.compare_neighbours(several, ["model_1", "model_4", "hybrid_1"])
        ],
        "over seeds": intervals.over_seeds([1.0, 2.0, 4.0]).low,
    }


def _of_seed(row: dict[str, float], shift: int) -> dict[str, float]:
    return {split: value - shift / 9 for split, value in row.items()}


def of_search() -> Numbers:
    from lethe.search.objectives import OBJECTIVES
    from lethe.search.pareto import front, hypervolume
    from lethe.search.pruning import PruningRule

    points = [(0.3, 80.0), (0.1, 70.0), (0.2, 85.0), (0.4, 90.0)]
    measured = {"retain.accuracy": 95.0, "forget.accuracy": 70.0, "validation.accuracy": 81.0, "forget.auc": 0.6, "utility": 80.0}
    retrained = {"retain.accuracy": 99.0, "forget.accuracy": 84.0, "validation.accuracy": 84.0, "utility": 84.0}
    near = retrained | {"forget.accuracy": 82.0, "forget.auc": 0.53, "forget.auc.low": 0.49, "forget.auc.high": 0.57}
    images = {"retain": 400, "forget": 100, "validation": 100}
    original = {"retain.accuracy": 99.0, "forget.accuracy": 98.0, "utility": 85.0}
    ruined = near | {"retain.accuracy": 12.0, "utility": 11.0}
    return {
        "front": front(points),
        "hypervolume": hypervolume(points, (0.5, 0.0)),
        "stopped": PruningRule(85.0, 20.0, 20.0).reason([("final", 3, 0.2, 60.0)], 0.5, []),
        **{name: list(objective.point(measured, retrained)) for name, objective in OBJECTIVES.items()},
        "unseen": {
            name: [objective.unseen(each, retrained, images) for each in (measured, near, near | {"forget.auc.low": 0.51})]
            for name, objective in OBJECTIVES.items()
        },
        "rank": {
            name: [
                list(objective.rank(each, retrained, images, original))
                for each in (measured, near, near | {"retain.accuracy": 90.0}, ruined)
            ]
            for name, objective in OBJECTIVES.items()
        },
    }


COMPUTED: dict[str, Callable[[], Numbers]] = {
    "engine": of_engine,
    "reading": of_reading,
    "splits": of_splits,
    "measures": of_measures,
    "report": of_report,
    "search": of_search,
}


def differing(kept: Any, now: Any, path: str = "", *, tolerance: float = TOLERANCE) -> list[str]:
    """Where two trees of numbers differ by more than the order of sums."""
    if isinstance(kept, dict) and isinstance(now, dict):
        keys = {**kept, **now}
        return [line for key in keys for line in differing(kept.get(key), now.get(key), f"{path}/{key}", tolerance=tolerance)]
    if isinstance(kept, list) and isinstance(now, list) and len(kept) == len(now):
        scale = max((abs(value) for value in kept if isinstance(value, float)), default=0.0)
        return [
            line
            for n, (a, b) in enumerate(zip(kept, now, strict=True))
            if not (isinstance(a, float) and isinstance(b, float) and abs(a - b) <= tolerance * scale)
            for line in differing(a, b, f"{path}[{n}]", tolerance=tolerance)
        ]
    if isinstance(kept, float) and isinstance(now, int | float):
        return [] if np.isclose(kept, now, rtol=tolerance, atol=1e-9) else [f"{path}: {kept} was declared, {now} is computed"]
    return [] if kept == now else [f"{path}: {kept!r} was declared, {now!r} is computed"]


@pytest.mark.parametrize("name", COMPUTED)
def test_the_arithmetic_is_what_its_number_says(name: str) -> None:
    kept = json.loads((GOLDEN / f"{name}.json").read_text())
    assert kept["number"] == getattr(numerics, name.upper()), (
        "the number was raised: renew with `PYTHONPATH=tests python tests/contract/test_golden.py`"
    )
    now = json.loads(json.dumps(COMPUTED[name]()))
    found = differing(kept["values"], now)
    if name == "engine" and len({line.split("/")[1] for line in found}) <= MOST_FLIPPED:
        found = differing(kept["values"], now, tolerance=FLIPPED)
    assert not found, f"raise numerics.{name.upper()}, or compute what was computed"


def test_a_small_change_of_the_arithmetic_is_seen() -> None:
    """The tolerance is for the order of sums alone."""
    kept = json.loads((GOLDEN / "engine.json").read_text())["values"]["model_1"]
    (phase,) = small("model_1")
    assert isinstance(phase, Phase)
    assert differing(kept, moved((replace(phase, optimizer=SGD(0.9, 0.0006)),)))


if __name__ == "__main__":
    for name, compute in COMPUTED.items():
        path, number = GOLDEN / f"{name}.json", getattr(numerics, name.upper())
        made = json.loads(json.dumps({"number": number, "values": compute()}))
        if path.exists() and (kept := json.loads(path.read_text()))["number"] == number:
            if found := differing(kept["values"], {key: value for key, value in made["values"].items() if key in kept["values"]}):
                sys.exit(f"raise numerics.{name.upper()} first; {found[0]}")
            if made["values"].keys() == kept["values"].keys():
                continue
            made["values"] = kept["values"] | {key: value for key, value in made["values"].items() if key not in kept["values"]}
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(json.dumps(made, indent=1) + "\n")
        print(path)
