"""Compare rules that choose a method's settings without a retrained model with the choice that has retrained models in view.

    python bench/choosing.py [--requests 1,2] [--share 0.2]

Requests (data.seed) of results/leaderboard/digits. For each: an original, 8 retrained models, and `ft` at four learning rates and
`lethe` at five rates and three weights, by two seeds each. A rule sees the losses of forget and of the selection half of validation, and
validation accuracy. `small` is a logistic regression on the pixels of retain: a model that never saw forget, for next to nothing. Printed
are the AUC of forget's losses for retrained models and for `small`, and the mean avg_gap.svc of each rule's choice, by its own seed and by
the other one.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import Module

from lethe.config.loader import load
from lethe.data.splits import SPLITS
from lethe.engine import engine
from lethe.engine.options import RunOptions
from lethe.evaluation import inference
from lethe.evaluation.context import EvaluationContext
from lethe.evaluation.logits_table import Floats, Ints, LogitsTable, class_weights
from lethe.evaluation.measures import avg_gap_svc
from lethe.evaluation.reference import RETAIN_LIMIT, loses_validation, trained
from lethe.pipeline.cost import planned_share
from lethe.recipes.held_out import halves
from lethe.recipes.recipe import Recipe
from lethe.workspace.prepare import prepare
from lethe.workspace.workspace import Prepared

SETTINGS: list[tuple[str, dict[str, float]]] = [("ft", {"lr": lr}) for lr in (0.1, 0.2, 0.3, 0.5)]
SETTINGS += [("lethe", {"lr": lr, "weight": weight}) for lr in (0.05, 0.1, 0.2, 0.3, 0.5) for weight in (0.05, 0.15, 0.5)]
REFERENCES, SEEDS, DRAWS, PIXELS = 8, (0, 1), 100, 7  # every seventh pixel is enough for `small`


@dataclass(frozen=True, eq=False)
class Tried:
    """A setting by a seed: AUC of forget's losses, the same on resampled images, accuracy on validation and retain, whether it is ruined,
    and avg_gap.svc."""

    setting: str
    auc: float
    drawn: Floats
    useful: float
    retain: float
    ruined: bool
    gap: float


Rule = Callable[[Sequence[Tried], float, Floats], Tried]


def area(forget_F: Floats, unseen_V: Floats, weights_V: Floats) -> float:
    order = np.argsort(unseen_V)
    total = np.concatenate([[0.0], np.cumsum(weights_V[order])])
    below, upto = (total[np.searchsorted(unseen_V[order], forget_F, side)] for side in ("left", "right"))
    return float(((total[-1] - upto) + 0.5 * (upto - below)).mean() / total[-1])


def present(tried: Sequence[Tried], small: float, drawn: Floats) -> Tried:
    passed = [one for one in tried if np.quantile(one.drawn, 0.025) <= 0.5 <= np.quantile(one.drawn, 0.975)]
    return max(passed, key=lambda one: (one.useful, -abs(one.auc - 0.5))) if passed else nearest(tried, 0.5, drawn)


def landed(tried: Sequence[Tried], small: float, drawn: Floats) -> Tried:
    """The rule of a search (`Objective.rank`)."""
    sound = [one for one in tried if not one.ruined] or tried
    passed = [one for one in sound if np.quantile(one.drawn, 0.025) <= 0.5 <= np.quantile(one.drawn, 0.975)]
    kept = [one for one in passed if one.retain >= 100 - RETAIN_LIMIT] or passed
    return max(kept, key=lambda one: (one.useful, -abs(one.auc - 0.5))) if kept else nearest(sound, 0.5, drawn)


def nearest(tried: Sequence[Tried], aim: float, drawn: Floats) -> Tried:
    return min(tried, key=lambda one: abs(one.auc - aim))


def paired(tried: Sequence[Tried], small: float, drawn: Floats) -> Tried:
    passed = [one for one in tried if abs(one.auc - small) <= 1.96 * (one.drawn - drawn).std()]
    return max(passed, key=lambda one: one.useful) if passed else nearest(tried, small, drawn)


RULES: dict[str, Rule] = {
    "with retrained models in view": lambda tried, small, drawn: min(tried, key=lambda one: one.gap),
    "the most useful whose interval contains 0.5": present,
    "the same, of those that keep retain and validation": landed,
    "nearest to 0.5": lambda tried, small, drawn: nearest(tried, 0.5, drawn),
    "nearest to small's": nearest,
    "the most useful within a paired interval of small's": paired,
}


def run(prepared: Prepared, recipe: Recipe, network: Module, seed: int) -> LogitsTable:
    for _ in engine.run(recipe, network, prepared.data, RunOptions(seed=seed, fresh_init=prepared.fresh_network(seed))):
        pass
    ids = prepared.images.ids
    split = np.zeros(len(ids), np.uint8)
    for number, name in enumerate(SPLITS):
        split[prepared.splits[name]] = number
    logits_NC = inference.logits(network, prepared.data, torch.arange(len(ids))).numpy()
    return LogitsTable("run", tuple(ids), prepared.images.labels.astype(np.int64), split, logits_NC)


def request(number: int, share: float) -> tuple[list[tuple[str, int, Tried]], float, float, Floats]:
    """Settings as tried for a request, AUC for retrained models and for `small`, and the latter's on resampled images."""
    # lethe as it was before it pulled log odds
    before = {"pull_on": "loss", "fade": 0, "reinit": "", "batch_size": 16, "forget_batch_size": 16, "renew_every": 0.3}
    former = [word for name, value in before.items() for word in (f"--methods.lethe.{name}", str(value))]
    words = ["--config", "results/leaderboard/digits/settings.yaml", *former, "--data.seed", str(number)]
    config = load([*words, "--run.workspace", f"choosing/{number}", "--run.threads", "1"])
    prepared = prepare(config)
    network = prepared.untrained(0)
    original = run(prepared, prepared.reference_recipe("original"), network, 0)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    again = prepared.reference_recipe("retrained")
    references = [run(prepared, again, prepared.untrained(seed), seed) for seed in range(1, 1 + REFERENCES)]

    labels, place = original.labels, {id_: row for row, id_ in enumerate(original.ids)}
    selection = halves(torch.from_numpy(prepared.splits["validation"]), torch.from_numpy(prepared.images.labels.astype(np.int64)))[1]
    forget, unseen = original.rows("forget"), np.array([place[prepared.images.ids[image]] for image in selection.tolist()])
    weights = class_weights(labels[forget], labels[unseen])
    draw = np.random.default_rng(0)
    indices = [(draw.integers(0, len(forget), len(forget)), draw.integers(0, len(unseen), len(unseen))) for _ in range(DRAWS)]

    def drawn(loss_N: Floats) -> Floats:
        forget_F, unseen_V = loss_N[forget], loss_N[unseen]
        return np.array([area(forget_F[i], unseen_V[j], weights[j]) for i, j in indices])

    small = _small(prepared, original.rows("retain"), place, labels)
    known = np.mean([each.loss for each in references], axis=0)
    found = []
    for method, arguments in SETTINGS:
        own = replace(config, method=method).changed(arguments)
        epochs = own.methods[method].model_dump()["retain_epochs"]
        own = own.changed({"retain_epochs": round(epochs * share / planned_share(own), 3)})
        for seed in SEEDS:
            network = prepared.network(seed)
            network.load_state_dict(start)
            model = run(prepared, own.recipe(), network, seed)
            gap = avg_gap_svc(EvaluationContext(model, references, original, resample=False)).value
            auc, useful = area(model.loss[forget], model.loss[unseen], weights), 100 * float(model.correct[unseen].mean())
            retain = 100 * float(model.correct[model.rows("retain")].mean())
            ruined = loses_validation(trained("original", original), trained("retrained", model))
            found.append((method, seed, Tried(f"{method} {arguments}", auc, drawn(model.loss), useful, retain, ruined, gap)))
    of_known, of_small = (area(loss[forget], loss[unseen], weights) for loss in (known, small))
    return found, of_known, of_small, drawn(small)


def _small(prepared: Prepared, retain: Ints, place: dict[str, int], labels: Ints) -> Floats:
    pixels = np.empty((len(labels), prepared.images.pixels[0, 0, ..., ::PIXELS].size))
    for image, id_ in enumerate(prepared.images.ids):
        pixels[place[id_]] = prepared.images.pixels[image, 0, ..., ::PIXELS].ravel() / 255
    model = LogisticRegression(C=0.1, max_iter=300).fit(pixels[retain], labels[retain])
    return np.asarray(-model.predict_log_proba(pixels)[np.arange(len(labels)), np.searchsorted(model.classes_, labels)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", default="1,2")
    parser.add_argument("--share", type=float, default=0.2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    gaps: dict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for number in map(int, asked.requests.split(",")):
        found, known, small, drawn = request(number, asked.share)
        print(f"request {number}: AUC for retrained models {known:.3f}, for small {small:.3f}")
        for method in dict.fromkeys(name for name, _ in SETTINGS):
            for seed in SEEDS:
                own, other = ([one for name, s, one in found if name == method and s == wanted] for wanted in (seed, 1 - seed))
                for rule, choose in RULES.items():
                    best = choose(own, small, drawn)
                    gaps[method, rule].append((best.gap, next(one.gap for one in other if one.setting == best.setting)))
    for (method, rule), pairs in gaps.items():
        first, second = np.mean(pairs, axis=0)
        print(f"{method:<6} {rule:<52} {first:5.2f} {second:5.2f}")


if __name__ == "__main__":
    main()
