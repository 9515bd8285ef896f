"""Figures of the report: their records (the rows of a CSV file each), titles and captions. Drawing is in lethe.plots."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lethe.evaluation import chance
from lethe.evaluation.verdict.accuracies import REFERENCES, Record, ResultSet
from lethe.plots import report_figures
from lethe.plots.report_figures import CHAIN
from lethe.recipes.paper_methods import PAPER_METHODS
from lethe.reporting.report_data import ReportData

PANELS = {"model": "six models", "hybrid": "four hybrids", "other": "others"}


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        title: its title.
        caption: what to look for.
        record: the rows of its CSV file.
        draw: (record, title=, note=) -> PNG.
    """

    title: str
    caption: str
    record: Record
    draw: Callable[..., bytes]

    @property
    def empty(self) -> bool:
        """Whether there is no method to show."""
        return all(row["family"] == "reference" for row in self.record)


def figures(data: ReportData) -> dict[str, Figure]:
    """The four figures of the report, by file name."""
    shared = data.comparable or "published" not in data.results or len(data.with_methods) == 1
    own_axes = "" if shared else " Published results and ours are on different images, so each panel has its own axes."
    scatter = partial(report_figures.scatter, shared=shared)
    corners = ("still remembered: correct more\noften than on unseen images", "over-forgotten: wrong more\noften than on unseen images")
    return {
        "figure_1": Figure(
            "Figure 1: retain against forget accuracy",
            "The target is the intersection of the grey lines, the retrained model. Right of it the forget set is still remembered, left "
            f"of it over-forgotten; below it the accuracy on the remaining images has suffered.{own_axes}",
            _end_points(data, "forget", "retain"),
            partial(scatter, x="forget", y="retain"),
        ),
        "figure_2": Figure(
            "Figure 2: validation accuracy over epochs",
            "The cost of unlearning on images that no model was trained on. The target is the dashed line, the retrained model's accuracy.",
            _curves(data, "validation", "validation.accuracy"),
            partial(report_figures.lines, y="validation", y_label="validation accuracy (percent)"),
        ),
        "figure_3": Figure(
            "Figure 3: gap over epochs",
            "Retain minus forget accuracy. The target is the dashed line, the retrained model's gap: a smaller gap means that images are "
            "remembered, a larger one over-forgetting.",
            _curves(data, "gap", "gap"),
            partial(report_figures.lines, y="gap", y_label="retain minus forget accuracy (points)"),
        ),
        "figure_4": Figure(
            "Figure 4: forget against test accuracy, with the retrained model as the target",
            "On the dotted line forget and test accuracy are equal, as they roughly are for a model that never saw a random forget set."
            f"{own_axes}",
            _end_points(data, "test", "forget"),
            partial(scatter, x="test", y="forget", corners=corners),
        ),
    }


def _point(name: str) -> dict[str, Any]:
    family = name.partition("_")[0] if name in PAPER_METHODS else "reference" if name in REFERENCES else "other"
    return {"method": name, "label": f"{name[0].upper()}{name[-1]}" if name in PAPER_METHODS else name, "family": family}


def _drawn(results: ResultSet) -> dict[str, Mapping[str, float]]:
    """Accuracies by run, without a retrained model that is no target."""
    return {name: each for name, each in results.accuracies.items() if name != "retrained" or not results.unfit}


def _end_points(data: ReportData, x: str, y: str) -> Record:
    """Final accuracies of the methods, for each result set in which a method ran."""
    rows: Record = []
    for results in data.with_methods:
        for name, accuracies in _drawn(results).items():
            row: dict[str, Any] = {"panel": data.titled(results), **_point(name)} | {split: accuracies.get(split) for split in (x, y)}
            for split in (x, y):
                known = name == "retrained" and split in accuracies
                row |= _band(split, results.by_chance(name, split) if known else (None, None))
            rows.append(row)
    return rows


def _band(column: str, ends: tuple[float | None, float | None]) -> dict[str, float | None]:
    """The range in which another retrained model is expected by chance, as text and card have it; of the retrained model alone."""
    return {f"{column}.low": ends[0], f"{column}.high": ends[1]}


def _band_of_gap(results: ResultSet) -> tuple[float, float]:
    """The same of the gap, which no score has an interval of: that of the difference of two models like the retrained one."""
    retain, forget = (results.estimate("retrained", split) for split in ("retain", "forget"))
    low, high = chance.difference([retain, forget], [forget, retain])
    return retain.value - forget.value + low, retain.value - forget.value + high


def _curves(data: ReportData, y: str, measure: str) -> Record:
    """A measure by epoch. `original` is at epoch 0, `retrained` is a level without an epoch; a chain numbers its epochs consecutively."""
    rows: Record = []
    splits = ["retain", "forget"] if y == "gap" else [y]
    for results in data.with_methods:
        ends = {
            name: [accuracies[split] for split in splits]
            for name, accuracies in _drawn(results).items()
            if name in REFERENCES and splits[0] in accuracies
        }
        panels: dict[str, list[str]] = {}
        for name in results.epochs:
            panel = CHAIN if results.title == CHAIN else f"{results.title}: {PANELS[_point(name)['family']]}"
            panels.setdefault(panel, []).append(name)
        for panel, names in panels.items():
            before = 0
            for name, end in ends.items():
                row = {"panel": panel, **_point(name), "epoch": 0 if name == "original" else None, y: end[0] - sum(end[1:])}
                ends_of = _band_of_gap(results) if y == "gap" else results.by_chance("retrained", y)
                rows.append(row | _band(y, ends_of if name == "retrained" else (None, None)))
            for name in names:
                seen = [epoch for epoch in results.epochs[name] if measure in epoch]
                row = {"panel": panel, **_point(name)}
                rows += [row | {"epoch": before + epoch["step"], y: epoch[measure]} | _band(y, (None, None)) for epoch in seen]
                before += results.epochs[name][-1]["step"] if panel == CHAIN else 0
    return rows
