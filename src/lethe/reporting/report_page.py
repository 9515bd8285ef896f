"""report.html: verdicts, forget against test accuracy, and a table of all runs on one page that needs no network."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment

from lethe._util.errors import RunFailed
from lethe._util.log import log
from lethe.data.splits import SPLITS
from lethe.evaluation import uncertainty
from lethe.evaluation.score import MeasureResult
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict.accuracies import REFERENCES, ResultSet, label
from lethe.evaluation.verdict.memory import is_measurable
from lethe.evaluation.verdict.words import WORDS
from lethe.plots import svg_scatter
from lethe.plots.svg_scatter import Plane
from lethe.reporting import narrative, tables
from lethe.reporting.report_data import ReportData
from lethe.reporting.templates import environment, plain_text
from lethe.tracking.logged_runs import find_runs
from lethe.tracking.outbox import destination
from lethe.workspace import scores
from lethe.workspace.run_names import RunId

TITLE = "Unlearning report"
COLUMNS = ("Run", "Verdict", "Memory left", *(split.capitalize() for split in SPLITS), "Distance", "Epochs")


def html(data: ReportData, links: Mapping[str, str]) -> str:
    """Render the page.

    Args:
        data: the contents of the report.
        links: run -> address of its MLflow run, as far as known.

    Returns:
        A complete HTML document.
    """
    own = [data.results["independent"], *([data.results["as_run"]] if data.results["as_run"].methods else [])]
    groups = [group for results in own for group in _verdicts(results)]
    variables = {
        "title": f"{TITLE}: {data.source}",
        "measured_on": data.images,
        "warnings": [f"No verdict: {own[0].unfit}."] if own[0].unfit else [],
        "verdicts": sorted(groups, key=lambda group: [*WORDS].index(group["word"])),
        "findings": _findings(own[0]),
        "plot": _plot(data),
        "columns": COLUMNS,
        "rows": [row for results in own for row in _rows(data, results, links)],
        "originals": tables.originals_rows(data.replications),
        "published": "published" in data.results,
        "measures": bool(scores.read(data.layout.scores(next(iter(own[0].accuracies)))).measures),
    }
    return _environment().get_template("report.html.jinja").render(**variables)


@cache
def _environment() -> Environment:
    return environment(True)


def run_links(names: Sequence[str]) -> dict[str, str]:
    """Find the addresses of the MLflow runs of methods, where runs are logged to a server that a browser reaches (http).

    Args:
        names: runs of the workspace, as their tag `method` says.

    Returns:
        Run -> address of the newest finished run; empty without such a server, and with a message if it does not answer.
    """
    address = str(destination()["uri"])
    if not address.startswith("http"):
        return {}
    links = {}
    try:
        for name in names:
            finished = [run for run in find_runs({"method": name}) if run["status"] == "FINISHED"]
            if finished:
                links[name] = f"{address.rstrip('/')}/#/experiments/{finished[0]['experiment_id']}/runs/{finished[0]['run_id']}"
    except RunFailed as error:
        log(f"report.html has no links to MLflow: {error}")
    return links


# --- words ------------------------------------------------------------------------------------------------------------


def _verdicts(results: ResultSet) -> list[dict[str, Any]]:
    """One group for each word: its heading and meaning, and the runs that got it."""
    by_word = narrative.by_verdict(results)
    title = f" ({results.title})" if results.title != "independent" else ""
    return [{"word": word, "heading": WORDS[word][0] + title, "meaning": WORDS[word][1], "runs": runs} for word, runs in by_word.items()]


def _findings(results: ResultSet) -> list[str]:
    """What there is to forget, the methods nearest to retraining, and losses of accuracy; without what the verdicts say already."""
    headings = tuple(f"**{heading}**" for heading, _ in WORDS.values())
    return [plain_text(line) for line in narrative.findings(results) if not line.startswith(headings) and not results.unfit]


# --- the figure -------------------------------------------------------------------------------------------------------


def _plot(data: ReportData) -> dict[str, Any] | None:
    """Places of everything in the figure of forget against test accuracy; None without a run."""
    results = data.results["independent"]
    runs = {name: row for name, row in results.accuracies.items() if name != "retrained" or not results.unfit}
    cloud = [] if results.unfit else data.retrained
    points = [(row["test"], row["forget"]) for row in runs.values()]
    if not points:
        return None
    plane = Plane.around([*points, *((row["test"], row["forget"]) for row in cloud)])
    places = plane.places(points, [label(name) for name in runs])
    drawn = [
        {**vars(place), "label": label(name), "title": _title(label(name), runs[name]), "kind": _kind(results, name)}
        for name, place in zip(runs, places, strict=True)
    ]
    ends = plane.diagonal()
    return {
        "width": svg_scatter.WIDTH,
        "height": svg_scatter.HEIGHT,
        "left": svg_scatter.LEFT,
        "right": svg_scatter.WIDTH - svg_scatter.RIGHT,
        "top": svg_scatter.TOP,
        "bottom": svg_scatter.HEIGHT - svg_scatter.BOTTOM,
        "x_ticks": [{"at": plane.x(tick), "text": f"{tick:g}"} for tick in plane.x_ticks()],
        "y_ticks": [{"at": plane.y(tick), "text": f"{tick:g}"} for tick in plane.y_ticks()],
        "diagonal": (plane.x(ends[0]), plane.y(ends[0]), plane.x(ends[1]), plane.y(ends[1])) if ends else None,
        "cloud": [{"x": plane.x(row["test"]), "y": plane.y(row["forget"]), "title": _title("retrained", row)} for row in cloud],
        "runs": drawn,
    }


def _title(name: str, row: Mapping[str, float]) -> str:
    return f"{name}: forget {row['forget']:.2f}, test {row['test']:.2f}"


def _kind(results: ResultSet, name: str) -> str:
    if name in REFERENCES:
        return name
    return results.verdicts[name].word if name in results.verdicts else "none"


# --- the table --------------------------------------------------------------------------------------------------------


def _rows(data: ReportData, results: ResultSet, links: Mapping[str, str]) -> list[dict[str, Any]]:
    chain = results.title != "independent"
    rows = []
    for name, accuracies in results.accuracies.items():
        if chain and name in REFERENCES:
            continue
        run = str(RunId(name, chain="as_run")) if chain else name
        measures = scores.read(data.layout.scores(run)).measures
        verdict = results.verdicts.get(name) if name not in REFERENCES else None
        left = verdict.memory_left if verdict else None
        share = left.value if left and is_measurable(left) else None
        cells = [_cell(share, "{:z.0f}", _interval(left, "{:z.0f}") if left else [])]
        cells += [_accuracy(results, name, split, accuracies[split], measures.get(f"accuracy.{split}")) for split in SPLITS]
        distance = results.mean_distance(name) if name != "retrained" else None
        epochs = results.epochs[name][-1]["step"] if name in results.epochs else None
        cells += [_cell(distance, "{:z.2f}", []), _cell(epochs, "{:z.0f}", [])]
        rows.append(
            {
                "label": f"{label(name)} ({results.title})" if chain else label(name),
                "link": links.get(run, ""),
                "word": verdict.word if verdict else "",
                "heading": verdict.head if verdict else "",
                "order": [*WORDS].index(verdict.word) if verdict else None,
                "cells": cells,
            }
        )
    return rows


def _accuracy(results: ResultSet, name: str, split: str, value: float, measured: MeasureResult | None) -> dict[str, Any]:
    """A cell with the interval of an accuracy, and with where a retrained model is by chance."""
    more = _interval(measured.estimate, "{:.1f}") if measured and measured.estimate else []
    if name != "retrained" and split in results.accuracies.get("retrained", {}) and not results.unfit:
        low, high = results.by_chance(name, split)
        more.append(f"retrained, by chance {max(low, 0.0):.1f} to {min(high, 100.0):.1f}")
    return _cell(value, "{:z.2f}", more)


def _interval(estimate: Estimate, form: str) -> list[str]:
    if estimate.low is None:
        return []
    low, high = estimate.ends()
    over = {uncertainty.SEEDS: "seeds from one original"}.get(estimate.interval, "images")
    return [f"95 % over {over}: {form.format(low)} to {form.format(high)}"]


def _cell(value: float | None, form: str, more: Sequence[str]) -> dict[str, Any]:
    return {"value": None if value is None else round(value, 6), "text": "–" if value is None else form.format(value), "more": list(more)}
