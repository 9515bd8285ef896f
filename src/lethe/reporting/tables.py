"""Tables of the report: as records for CSV files, as Markdown, and for the terminal."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lethe._util.names import as_cell
from lethe.data.splits import SPLITS
from lethe.evaluation import catalogue, chance, uncertainty
from lethe.evaluation.replication import Replication
from lethe.evaluation.score import MeasureResult
from lethe.evaluation.verdict.accuracies import REFERENCES, Difference, Record, ResultSet, assess, label
from lethe.recipes.paper_methods import PAPER_METHODS
from lethe.reporting.report_data import ReportData
from lethe.workspace import scores
from lethe.workspace.layout import Layout

MARK = "**!**"  # of a run that raised the alarm


def record(data: ReportData, names: Iterable[str], keys: Iterable[str]) -> Record:
    """Rows of a table's CSV file: one for each method and result set.

    Args:
        data: the contents of the report.
        names: the methods; the references are added.
        keys: the result sets.

    Returns:
        Accuracies in percent, distances in points. None: the method was not run, or the number does not exist.
    """
    rows: Record = []
    for name in (*REFERENCES, *names):
        for key in keys:
            results = data.results[key]
            ran = name in results.accuracies
            accuracies, distances = (results.accuracies[name], results.distances(name)) if ran else ({}, {})
            verdict, mean = assess(results, name), results.mean_distance(name) if ran else None
            row: dict[str, Any] = {"method": name, "reading": key, "status": "run" if ran else "not run"}
            row |= {split: accuracies.get(split) for split in SPLITS} | {f"{split}.distance": distances.get(split) for split in SPLITS}
            if data.seeds:
                half = results.half_widths(name)
                row |= {f"{split}.half_width": half.get(split) for split in SPLITS}
                row |= {"seeds": len(results.by_seed.get(name, {})) or None}
                row |= {"mean_distance_of_seeds": results.mean_distance_of_seeds(name) if ran else None}
            row |= {
                "floor": results.floor,
                "mean_distance": mean,
                "epochs": results.epochs[name][-1]["step"] if name in results.epochs else None,
            }
            row |= {"says": verdict.kind if verdict else None}
            rows.append(row | {"verdict": results.verdicts[name].word if name in results.verdicts else None})
    return rows


def markdown_table(data: ReportData, names: Iterable[str], keys: Iterable[str]) -> str:
    """Format a table in Markdown: result sets side by side, each accuracy with its signed distance from the retrained model's.

    Args:
        data: the contents of the report.
        names: the methods; the references are added.
        keys: the result sets.

    Returns:
        The table; accuracies in percent, distances in points.
    """
    blocks = [data.results[key] for key in keys]
    head = [f"{block.title}: {split}" if split == SPLITS[0] else split for block in blocks for split in SPLITS]
    ours = [block for block in blocks if block.command]
    rows = [["", *head, f"epochs: {', '.join(block.title for block in ours)}"], ["---"] + ["---:"] * (len(head) + 1)]
    for name in (*REFERENCES, *names):
        first = f"*{name}*" if name in REFERENCES else label(name)
        epochs = [str(block.epochs[name][-1]["step"]) if name in block.epochs else "–" for block in ours]
        last = ", ".join(epochs) if name not in REFERENCES else ""
        rows.append([first, *(cell for block in blocks for cell in _cells(block, name)), last])
    return _markdown(rows)


def _cells(results: ResultSet, name: str) -> list[str]:
    if name not in results.accuracies:
        return ["not run", "", "", ""]
    row, distances = results.accuracies[name], {} if name == "retrained" else results.distances(name)
    half = {split: f" ± {width:.2f}" for split, width in results.half_widths(name).items()}
    cells = {split: f"{row[split]:.2f}{half.get(split, '')}" if split in row else "–" for split in SPLITS}
    marks = {"forget": f" {MARK}"} if results.alarms.get(name) else {}
    return [(f"{cell} ({distances[split]:+z.2f})" if split in distances else cell) + marks.get(split, "") for split, cell in cells.items()]


def markdown_neighbours(differences: Sequence[Difference]) -> str:
    """Markdown: whether neighbouring methods differ by more than noise, and how that was tested."""
    numbers = sorted({one.seeds for one in differences})
    many = f"n = {numbers[0]} seeds" if len(numbers) == 1 else f"n = {numbers[0]} to {numbers[-1]} seeds"
    head = (
        f"**Is the difference more than noise?** Tested for each pair of neighbours in the table: forget and test accuracy, paired by seed "
        f"({many}; Student's paired t-test, two-sided; the sign test where all differences are equal), Holm's correction for the "
        f"{len(differences)} tests of this table. The answer is yes if the corrected p is below {1 - uncertainty.CONFIDENCE:.2g}. "
        "±: half the 95 % interval (Student's t over seeds) of that difference alone."
    )
    rows = [["first minus second", "accuracy", "n", "points", "p", "corrected p", ""], ["---", "---", *["---:"] * 4, "---"]]
    for one in differences:
        pair, points = f"{label(one.first)}, {label(one.second)}", f"{one.points:+z.2f} ± {one.half_width:.2f}"
        answer = "**more than noise**" if one.more_than_noise else "no more than noise"
        rows.append([pair, one.split, str(one.seeds), points, _p(one.p), _p(one.adjusted), answer])
    return head + "\n\n" + _markdown(rows)


def neighbours_record(differences: Sequence[Difference]) -> Record:
    """Rows of the CSV file of `markdown_neighbours`."""
    return [asdict(one) | {"more_than_noise": one.more_than_noise} for one in differences]


def originals_rows(found: Mapping[str, Replication]) -> Record:
    """Rows of originals.csv: methods that ran from several originals, mean accuracies with both variances.

    Args:
        found: method -> its runs from all originals.
    """
    rows: Record = []
    for name, one in found.items():
        for split in SPLITS:
            result, spread = one.measures.get(f"accuracy.{split}"), one.spreads.get(f"accuracy.{split}")
            if not result or not result.estimate or not spread:
                continue
            row: dict[str, Any] = {"method": name, "split": split, "originals": len(one.originals), "seeds": one.seeds}
            row |= _columns("", result.estimate, ("value", "low", "high", "interval"))
            row |= {"variance.train": spread.train, "variance.unlearn": spread.unlearn}
            row["variance.mean"] = spread.of_mean(len(one.originals), one.seeds)
            rows.append(row | {"verdict": one.judged.word if one.judged else None})
    return rows


def markdown_originals(found: Mapping[str, Replication]) -> str:
    """Format in Markdown what runs from several originals show.

    Args:
        found: method -> its runs from all originals.
    """
    head = (
        "Mean accuracy in percent over all originals and seeds with its 95 % interval over originals (Student's t), and the two variances: "
        "between originals, and between unlearning seeds from one original. The mean of I originals with J seeds each has the variance "
        "train / I + unlearn / (I J) (arXiv:2510.26714); the tables above show one original only."
    )
    rows = [["", "runs", "split", "mean", "95 % interval", "train", "unlearn"], ["---", "---", "---", *["---:"] * 4]]
    for row in originals_rows(found):
        interval = "–" if row["low"] is None else f"{row['low']:.2f} to {row['high']:.2f}"
        unlearn = "–" if row["variance.unlearn"] is None else f"{row['variance.unlearn']:.3f}"
        first = (label(row["method"]), found[row["method"]].size, row["split"])
        rows.append([*first, f"{row['value']:.2f}", interval, f"{row['variance.train']:.3f}", unlearn])
    verdicts = [f"{label(name)}: {one.judged.head.lower()}" for name, one in found.items() if one.judged]
    return "\n\n".join([head, _markdown(rows), *([f"Verdicts on all runs together: {'; '.join(verdicts)}."] if verdicts else [])])


def _markdown(rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "below 0.001"


def console_table(data: ReportData) -> str:
    """The accuracies for a terminal: for each split the result sets side by side; beside own images only what ran."""
    narrow = 8 if len(data.shown) > 1 else 12  # alone, a column is as wide as its split's name
    titles = {"published": ("published", 11), "independent": ("ours", narrow), "as_run": ("as run", narrow)}
    widths = dict(titles[key] for key in data.shown)
    known = [name for results in data.shown.values() for name in results.accuracies]
    names = [name for name in (*REFERENCES, *PAPER_METHODS, *data.others) if name in known]
    lines = [f"{'percent':<12}" + "".join(f"{split:>{sum(widths.values())}}" for split in SPLITS).rstrip()]
    lines.append(" " * 12 + "".join(f"{title:>{width}}" for _ in SPLITS for title, width in widths.items()))
    for name in names:
        line = f"{label(name):<12}"
        for split in SPLITS:
            for results, width in zip(data.shown.values(), widths.values(), strict=True):
                row = results.accuracies.get(name)
                cell = ("not run" if split == SPLITS[0] else "") if row is None else f"{row[split]:.2f}" if split in row else ""
                line += cell.rjust(width)
        lines.append(line.rstrip())
    return "\n".join(lines)


def measures_record(layout: Layout) -> Record:
    """Rows of measures.csv: every measure of every run, as in the score files, next to the retrained model's.

    For a measure whose target is a number, `retrained.*` is the score of models/retrained. `power`: whether the measure discriminates
    the original, which forgot nothing, from the retrained model (`chance.differs`), as on the card. `missing`: why there is no value."""
    names = [str(run) for run in layout.with_scores() if run.chain is None and run.seed is None]
    ordered = [name for name in (*REFERENCES, *PAPER_METHODS) if name in names]
    measures = {name: scores.read(layout.scores(name)).measures for name in dict.fromkeys((*ordered, *names))}
    unfit = scores.stored_unfit_reference(layout)
    references = {} if unfit else measures.get("retrained", {})
    rows: Record = []
    for name, each in measures.items():
        for id_, result in each.items():
            retrained = result.reference or _value(references, id_)
            original = _value(measures.get("original", {}), id_)
            row: dict[str, Any] = {"measure": id_, "method": name}
            row |= _columns("", result.estimate, ("value", "low", "high", "interval", "models"))
            row |= _columns("retrained.", retrained, ("value", "low", "high"))
            row["power"] = None if unfit else chance.differs(id_, original, catalogue.target_of(id_, retrained))
            rows.append(row | {"missing": result.missing or None})
    order = {id_: number for number, id_ in enumerate(dict.fromkeys(id_ for each in measures.values() for id_ in each))}
    return sorted(rows, key=lambda row: order[row["measure"]])


def _value(measures: Mapping[str, MeasureResult], id_: str) -> uncertainty.Estimate | None:
    return measures[id_].estimate if id_ in measures else None


def _columns(prefix: str, estimate: uncertainty.Estimate | None, names: Sequence[str]) -> dict[str, Any]:
    """Attributes of an estimate as columns, as in score files: no interval without ends, no number of models if it is one."""
    content = MeasureResult(estimate).to_json() if estimate else {}
    return {f"{prefix}{name}": content.get(name) for name in names}


def to_csv(rows: Record) -> bytes:
    """A record as a CSV file, numbers rounded to six digits."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: round(value, 6) if isinstance(value, float) else as_cell(value) for key, value in row.items()} for row in rows)
    return out.getvalue().encode()
