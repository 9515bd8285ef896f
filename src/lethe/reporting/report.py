"""The report of a workspace: Tables 7 and 8 in three readings, four figures, and what the numbers say.

All of it is read from scores/, epochs/ and data/, and from `published`; no number is typed, and no time is written (DVC hashes it).
"""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from lethe._util.checkout import command
from lethe._util.errors import UserError
from lethe._util.files import read_json, whole
from lethe.config.loader import Config
from lethe.data.images import Images
from lethe.data.splits import SPLITS
from lethe.engine.epoch_table import read_csv
from lethe.evaluation import seed_aggregation as seeds
from lethe.evaluation import uncertainty as intervals
from lethe.evaluation import verdict as judge
from lethe.evaluation.verdict import REFERENCES, Reading, Record, chance, label
from lethe.models import checkpoint
from lethe.plots import figures as plots
from lethe.recipes.paper_methods import TEN
from lethe.reporting import published
from lethe.workspace import scores as results
from lethe.workspace.layout import Layout
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import lying

TITLE = "Machine unlearning: ten methods beside a model that never saw the forgotten images"
TABLES = {"table_7": ("Table 7: the six models", published.TABLE_7), "table_8": ("Table 8: the four hybrids", published.TABLE_8)}
PANELS = {"model": "six models", "hybrid": "four hybrids", "other": "others"}
# not in every report
DRAWN = ("measures", *(f"figure_{n}" for n in (1, 2, 3, 4)), "table_others", *(f"table_{of}_neighbours" for of in ("7", "8", "others")))
HOW = (
    "Read every row beside *retrained*, the same training without the forget set: in brackets is the signed distance from it, in points, "
    "and perfect unlearning is 0 everywhere. Low forget accuracy is no success in itself: the retrained model still gets most of a "
    "random forget set right, about as much as of the test set. Accuracies are percent, {each}. What follows is said by rules "
    "from the numbers; *chance* is the 95 % interval for so many images (Agresti and Caffo), without the spread between seeds."
)


MARK = "**!**"  # of the alarm


@dataclass(frozen=True)
class Measured:
    """What a workspace holds, and what it was measured on. `comparable`: on CIFAR-10 proper, as what was published."""

    readings: Mapping[str, Reading]
    source: str
    images: str
    comparable: bool
    layout: Layout

    @property
    def ran(self) -> list[Reading]:
        return [reading for reading in self.readings.values() if reading.methods]

    @property
    def others(self) -> list[str]:
        """Variants, and methods that are not the report's."""
        return [name for name in self.readings["independent"].methods if name not in TEN]

    @property
    def several(self) -> dict[str, list[int]]:
        """Method -> its seeds, where it is the mean over several."""
        return {name: sorted(each) for name, each in self.readings["independent"].seeds.items()}

    def on(self, reading: Reading) -> str:
        return f"{reading.title} ({'CIFAR-10' if reading.title == 'published' else self.source})"


# --- reading ----------------------------------------------------------------------------------------------------------


def read(config: Config) -> Measured:
    """Scores and epoch tables of the workspace. Raises UserError when there are none, or some were measured on other splits."""
    layout = Layout(config.workspace)
    if not _names(layout):
        raise UserError(f"{layout.all_scores} holds no scores; {repair_command('unlearn', config)} makes some")
    prepared = lying(config)
    images, split = prepared.images, prepared.hashes["split"]
    sizes = {name: len(index) for name, index in prepared.splits.items()}
    rows = {name: _scores(config, name, split) for name in _names(layout)}
    references = {name: row for name, row in rows.items() if name in REFERENCES}
    links = {name: str(RunId(name, chain="as_run")) for name in _names(layout, "as_run") if name in TEN}
    chain = {name: _scores(config, link, split) for name, link in links.items()}
    tables = [published.REFERENCES, *(rows for _, rows in TABLES.values())]
    readings = {
        "published": Reading("published", published.SOURCE, "", published.SIZES, {k: v for rows in tables for k, v in rows.items()}),
        "independent": Reading(
            "independent",
            "Ours: each method from a fresh copy of the original",
            f"{command('unlearn')} --method <method>",
            sizes,
            rows,
            _epochs(layout, {name: name for name in rows if name not in REFERENCES}),
            _alarms(layout, {name: name for name in rows}),
            _by_seed(layout, rows, "accuracy"),
            _by_seed(layout, rows, "distance"),
        ),
        "as_run": Reading(
            plots.CHAIN,
            "Ours: the notebook's chain, each method from the result of the one before, with its phases and scales",
            command("unlearn", "--method", "as_run"),
            sizes,
            references | chain,
            _epochs(layout, links),
            _alarms(layout, links),
        ),
    }
    source, architecture = _source(config, images), _architecture(config)
    counts = ", ".join(f"{name} {number:,}" for name, number in sizes.items())
    same = source == "cifar10" and sizes == published.SIZES and architecture == published.ARCHITECTURE
    measured_on = f"data.source {source}, {len(images.classes)} classes ({counts} images), {architecture}"
    return Measured(readings, source, measured_on, same, layout)


def _names(layout: Layout, chain: str | None = None) -> list[str]:
    """References first, then the report's methods, then others. Single seeds are in the method's own file."""
    there = [run.method for run in layout.with_scores() if run.chain == chain and run.seed is None]
    known = [name for name in (*REFERENCES, *TEN) if name in there]
    return known + [name for name in there if name not in known]


def _scores(config: Config, name: str, split: str) -> dict[str, float]:
    layout = Layout(config.workspace)
    logits = layout.logits(name)
    if logits.exists() and checkpoint.metadata(logits).get("split") != split:
        stage = {"original": "pretrain", "retrained": "retrain"}.get(name, "evaluate")
        again = repair_command(stage, config, **({"method": RunId.parse(name).key} if stage == "evaluate" else {}))
        scores = layout.scores(name).relative_to(layout.root)
        raise UserError(f"{scores} was measured on other splits than data/splits holds; {again} measures anew")
    path = layout.scores(name)
    try:
        accuracy = read_json(path)["accuracy"]
        return {split: float(accuracy[split]) for split in SPLITS}
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path} does not hold the accuracies of {', '.join(SPLITS)}") from None


def _alarms(layout: Layout, names: Mapping[str, str]) -> dict[str, str]:
    found = {name: results.alarm(read_json(layout.scores(stem))) for name, stem in names.items()}
    return {name: said for name, said in found.items() if said is not None}


def _by_seed(layout: Layout, names: Iterable[str], what: str) -> dict[str, dict[int, dict[str, float]]]:
    """`accuracy` or `distance` of each seed, of the rows that are means over several."""
    known = {name: read_json(layout.scores(name)).get("seeds", {}) for name in names}
    found = {name: {int(seed): one[what] for seed, one in each.items() if what in one} for name, each in known.items()}
    return {name: each for name, each in found.items() if each}


def _epochs(layout: Layout, names: Mapping[str, str]) -> dict[str, Record]:
    paths = {name: layout.epochs(stem) for name, stem in names.items()}
    return {name: read_csv(path) for name, path in paths.items() if path.exists()}


def _source(config: Config, images: Images) -> str:
    """data.source as the images show it: the report may be asked for without the keys that made the workspace."""
    if images.ids[0].count("/") > 1:
        return "image_folder"
    return {"0": "digits", "airplane": "cifar10"}.get(images.classes[0], config.data.source)


def _architecture(config: Config) -> str:
    path = Layout(config.workspace).weights("original")
    known = checkpoint.metadata(path) if path.exists() else {}
    return known.get("architecture", config.model.architecture)


# --- tables -----------------------------------------------------------------------------------------------------------


def record(measured: Measured, names: Iterable[str], readings: Iterable[str]) -> Record:
    """A table as its CSV file holds it: a line for each method and reading."""
    lines: Record = []
    for name in (*REFERENCES, *names):
        for key in readings:
            reading = measured.readings[key]
            ran = name in reading.rows
            row, apart = (reading.rows[name], reading.distances(name)) if ran else ({}, {})
            found, mean = judge.verdict(reading, name), reading.mean_distance(name) if ran else None
            line: dict[str, Any] = {"method": name, "reading": key, "status": "run" if ran else "not run"}
            line |= {split: row.get(split) for split in SPLITS} | {f"{split}.distance": apart.get(split) for split in SPLITS}
            if measured.several:
                half = reading.half_widths(name)
                line |= {f"{split}.half_width": half.get(split) for split in SPLITS} | {"seeds": len(reading.seeds.get(name, {})) or None}
            line |= {"mean_distance": mean, "epochs": reading.epochs[name][-1]["step"] if name in reading.epochs else None}
            lines.append(line | {"says": found.kind if found else None})
    return lines


def table(measured: Measured, names: Iterable[str], readings: Iterable[str]) -> str:
    """Markdown: the readings side by side, each accuracy with its signed distance from the retrained model's."""
    blocks = [measured.readings[key] for key in readings]
    head = [f"{block.title}: {split}" if split == SPLITS[0] else split for block in blocks for split in SPLITS]
    timed = [block for block in blocks if block.command]
    lines = [["", *head, f"epochs: {', '.join(block.title for block in timed)}"], ["---"] + ["---:"] * (len(head) + 1)]
    for name in (*REFERENCES, *names):
        first = f"*{name}*" if name in REFERENCES else label(name)
        epochs = [str(block.epochs[name][-1]["step"]) if name in block.epochs else "–" for block in timed]
        last = ", ".join(epochs) if name not in REFERENCES else ""
        lines.append([first, *(cell for block in blocks for cell in _cells(block, name)), last])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(reading: Reading, name: str) -> list[str]:
    if name not in reading.rows:
        return ["not run", "", "", ""]
    row, apart = reading.rows[name], {} if name == "retrained" else reading.distances(name)
    half = {split: f" ± {width:.2f}" for split, width in reading.half_widths(name).items()}
    cells = {split: f"{row[split]:.2f}{half.get(split, '')}" if split in row else "–" for split in SPLITS}
    marks = {"forget": f" {MARK}"} if reading.alarms.get(name) else {}
    return [(f"{cell} ({apart[split]:+.2f})" if split in apart else cell) + marks.get(split, "") for split, cell in cells.items()]


def neighbours(found: Sequence[judge.Difference]) -> str:
    """Markdown: whether what stands beside each other differs, and how that was tested."""
    numbers = sorted({one.seeds for one in found})
    many = f"n = {numbers[0]} seeds" if len(numbers) == 1 else f"n = {numbers[0]} to {numbers[-1]} seeds"
    head = (
        f"**Is the difference more than noise?** Tested for each pair of neighbours in the table: forget and test accuracy, paired by seed "
        f"({many}; Student's paired t-test, two-sided), Holm's correction for the {len(found)} tests of this table. It is where the "
        f"corrected p is below {1 - intervals.CONFIDENCE:.2g}. ±: half the 95 % interval (Student's t over seeds) of that difference alone."
    )
    lines = [["first minus second", "accuracy", "n", "points", "p", "corrected p", ""], ["---", "---", *["---:"] * 4, "---"]]
    for one in found:
        pair, points = f"{label(one.first)}, {label(one.second)}", f"{one.points:+.2f} ± {one.half_width:.2f}"
        says = "**more than noise**" if one.more_than_noise else "no more than noise"
        lines.append([pair, one.split, str(one.seeds), points, _p(one.p), _p(one.adjusted), says])
    return head + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "below 0.001"


def _record(found: Sequence[judge.Difference]) -> Record:
    return [asdict(one) | {"more_than_noise": one.more_than_noise} for one in found]


def console(measured: Measured) -> str:
    """The main table for a terminal: the three readings of a split beside each other."""
    readings = list(measured.readings.values())
    lines = [f"{'percent':<12}" + "".join(f"{split:>27}" for split in SPLITS).rstrip()]
    lines.append(" " * 12 + "".join(f"{'published':>11}{'ours':>8}{'as run':>8}" for _ in SPLITS))
    for name in (*REFERENCES, *TEN, *measured.others):
        line = f"{label(name):<12}"
        for split in SPLITS:
            for reading, width in zip(readings, (11, 8, 8), strict=True):
                row = reading.rows.get(name)
                cell = ("not run" if split == SPLITS[0] else "") if row is None else f"{row[split]:.2f}" if split in row else ""
                line += cell.rjust(width)
        lines.append(line.rstrip())
    return "\n".join(lines)


def scored(layout: Layout) -> Record:
    """Every measure of every row, a line each, as the score files have it: the number, its interval, beside it the retrained models'.

    Where the aim is a number the retrained model of models/ stands for them. `power`: whether it tells the original, which forgot nothing,
    from them by more than their intervals; or else what is `missing`."""
    scores = {name: read_json(layout.scores(name)).get("measures", {}) for name in _names(layout)}
    lines: Record = []
    for name, each in scores.items():
        for id_, got in each.items():
            beside, began = got.get("reference") or scores.get("retrained", {}).get(id_, {}), scores.get("original", {}).get(id_, {})
            line: dict[str, Any] = {"measure": id_, "method": name}
            line |= {key: got.get(key) for key in ("value", "low", "high", "interval", "models")}
            line |= {f"retrained.{key}": beside.get(key) for key in ("value", "low", "high")}
            known = "value" in began and "value" in beside
            line["power"] = not intervals.no_power(_estimate(began), _estimate(beside)) if known else None
            lines.append(line | {"missing": got.get("missing")})
    order = {id_: number for number, id_ in enumerate(dict.fromkeys(id_ for each in scores.values() for id_ in each))}
    return sorted(lines, key=lambda line: order[line["measure"]])


def _estimate(got: Mapping[str, Any]) -> intervals.Estimate:
    return intervals.Estimate(got["value"], got.get("low"), got.get("high"))


def _csv(rows: Record) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()} for row in rows)
    return out.getvalue().encode()


# --- figures ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawing:
    """A figure: its record, what draws it, and what there is to see."""

    title: str
    about: str
    record: Record
    draw: Callable[..., bytes]  # (record, title=, note=)

    @property
    def empty(self) -> bool:
        return all(row["family"] == "reference" for row in self.record)


def figures(measured: Measured) -> dict[str, Drawing]:
    shared = measured.comparable or len(measured.ran) == 1
    own = "" if shared else " Published and ours stand on different images: each panel has its own axes."
    scatter = partial(plots.scatter, shared=shared)
    corners = ("still remembered: right more\noften than on unseen images", "over-forgotten: wrong more\noften than on unseen images")
    return {
        "figure_1": Drawing(
            "Figure 1: retain against forget accuracy",
            "The target is where the grey lines of the retrained model cross. Right of it the forget set is still remembered, left of it "
            f"over-forgotten, below it the rest has suffered.{own}",
            _ends(measured, "forget", "retain"),
            partial(scatter, x="forget", y="retain"),
        ),
        "figure_2": Drawing(
            "Figure 2: validation accuracy over epochs",
            "What unlearning costs on images that no model was trained on; the aim is the dashed line, the retrained model's.",
            _curves(measured, "validation", "validation.accuracy"),
            partial(plots.lines, y="validation", says="validation accuracy (percent)"),
        ),
        "figure_3": Drawing(
            "Figure 3: gap over epochs",
            "Retain minus forget accuracy. The aim is the dashed line, the retrained model's gap: below it is remembering, above it "
            "over-forgetting.",
            _curves(measured, "gap", "gap"),
            partial(plots.lines, y="gap", says="retain minus forget accuracy (points)"),
        ),
        "figure_4": Drawing(
            "Figure 4: forget against test accuracy, the retrained model as the target",
            f"On the dotted line forget and test accuracy are equal, as they about are in a model that never saw a random forget set.{own}",
            _ends(measured, "test", "forget"),
            partial(scatter, x="test", y="forget", corners=corners),
        ),
    }


def _point(name: str) -> dict[str, Any]:
    family = name.partition("_")[0] if name in TEN else "reference" if name in REFERENCES else "other"
    return {"method": name, "label": f"{name[0].upper()}{name[-1]}" if name in TEN else name, "family": family}


def _ends(measured: Measured, x: str, y: str) -> Record:
    """Where the methods ended, in each reading that ran."""
    rows: Record = []
    for reading in measured.ran:
        for name, row in reading.rows.items():
            line: dict[str, Any] = {"panel": measured.on(reading), **_point(name)} | {split: row.get(split) for split in (x, y)}
            spread = {split: chance((row[split], reading.sizes[split])) if split in row else None for split in (x, y)}
            rows.append(line | {f"{split}.chance": value for split, value in spread.items()})
    return rows


def _curves(measured: Measured, y: str, measure: str) -> Record:
    """Epoch by epoch. `original` stands at epoch 0, `retrained` is a level without an epoch; the chain counts its epochs through."""
    rows: Record = []
    of = ["retain", "forget"] if y == "gap" else [y]
    for reading in measured.ran:
        ends = {name: [row[split] for split in of] for name, row in reading.rows.items() if name in REFERENCES and of[0] in row}
        panels: dict[str, list[str]] = {}
        for name in reading.epochs:
            chain = reading.title == plots.CHAIN
            panels.setdefault(plots.CHAIN if chain else f"{reading.title}: {PANELS[_point(name)['family']]}", []).append(name)
        for panel, names in panels.items():
            before = 0
            for name, end in ends.items():
                line = {"panel": panel, **_point(name), "epoch": 0 if name == "original" else None, y: end[0] - sum(end[1:])}
                spread = chance(*((value, reading.sizes[split]) for value, split in zip(end, of, strict=True)))
                rows.append(line | {f"{y}.chance": spread if name == "retrained" else None})
            for name in names:
                seen = [epoch for epoch in reading.epochs[name] if measure in epoch]
                line = {"panel": panel, **_point(name)}
                rows += [line | {"epoch": before + epoch["step"], y: epoch[measure], f"{y}.chance": None} for epoch in seen]
                before += reading.epochs[name][-1]["step"] if panel == plots.CHAIN else 0
    return rows


# --- the page ---------------------------------------------------------------------------------------------------------


def report(config: Config) -> None:
    """report/report.md, measures.csv, table_*.csv, figure_*.csv and .png in the workspace; all are made before the first is written."""
    measured = read(config)
    lines = scored(Layout(config.workspace))
    made = ({"measures.csv": _csv(lines)} if lines else {}) | page(measured)
    folder = Layout(config.workspace).report
    for name, content in made.items():
        with whole(folder / name) as beside:
            beside.write_bytes(content)
    for name in (f"{stem}{suffix}" for stem in DRAWN for suffix in (".csv", ".png")):
        if name not in made:  # of an earlier report, and no longer true
            (folder / name).unlink(missing_ok=True)
    print(folder / "report.md")
    print(console(measured))


def page(measured: Measured) -> dict[str, bytes]:
    """File name -> content; report.md is the last."""
    made: dict[str, bytes] = {}
    weak = results.no_yardstick(measured.layout)
    parts = [f"# {TITLE}", _preface(measured), *([f"**No yardstick**: {weak}."] if weak else [])]
    tables: list[tuple[str, str, Sequence[str], Sequence[str]]]
    tables = [(name, title, list(rows), list(measured.readings)) for name, (title, rows) in TABLES.items()]
    if measured.others:
        tables.append(("table_others", "Variants and other methods", measured.others, ["independent"]))
    for name, title, names, readings in tables:
        made[f"{name}.csv"] = _csv(record(measured, names, readings))
        shown = table(measured, names, readings)
        legend = [f"{MARK}: over-forgets, see the alarm below."] if MARK in shown else []
        parts += [f"## {title}", shown, *legend, f"Record: [{name}.csv]({name}.csv)"]
        if found := judge.neighbours(measured.readings["independent"], names):
            made[f"{name}_neighbours.csv"] = _csv(_record(found))
            parts += [neighbours(found), f"Record: [{name}_neighbours.csv]({name}_neighbours.csv)"]
    parts += ["## What the numbers say", HOW.format(each=_each(measured))]
    for reading in measured.readings.values():
        parts += [f"### {reading.title.capitalize()}", f"{reading.about}.", "\n".join(f"- {line}" for line in _words(measured, reading))]
    runs = "means over seeds where there are several, curves of the first" if measured.several else "one run each"
    note = f"Ours: {measured.images}; {runs}. M: Model, H: Hybrid. Grey: retrained, with what chance may do on so many images (95 %)."
    for name, figure in figures(measured).items():
        parts.append(f"## {figure.title}")
        if figure.empty:
            parts.append("Not run: there is nothing to draw.")
            continue
        made |= {f"{name}.csv": _csv(figure.record), f"{name}.png": figure.draw(figure.record, title=figure.title, note=note)}
        parts += [f"![{figure.title}]({name}.png)", f"{figure.about} Record: [{name}.csv]({name}.csv)"]
    return made | {"report.md": ("\n\n".join(parts) + "\n").encode()}


def _words(measured: Measured, reading: Reading) -> list[str]:
    said, there = judge.words(reading), measured.readings["published"]
    said += [
        f"**Alarm**: {label(name)} over-forgets: {found}, beyond the retrained model's 95 % interval."
        for name, found in reading.alarms.items()
        if found
    ]
    if reading is there or not judge.has_power(reading):
        return said
    more = [judge.beside(reading, there), judge.apart(reading, there) if measured.comparable else ""]
    return said + [line for line in more if line]


def _each(measured: Measured) -> str:
    """What a number of the tables is of."""
    told = [f"{label(name)} (seeds {seeds.said(each)})" for name, each in measured.several.items()]
    if not told:
        return "each of one run"
    return (
        f"those of {', '.join(told)} mean ± half the 95 % interval over seeds (Student's t), with distances paired by seed as far as "
        "each has a retrained model, else from the one; any other of one run"
    )


def _preface(measured: Measured) -> str:
    first = f"Ours were measured on {measured.images}. "
    if measured.comparable:
        return first + "That is CIFAR-10 proper, with the published architecture and number of images: published and ours can be compared."
    return first + (
        f"**Published numbers are of CIFAR-10 with {published.ARCHITECTURE} ({', '.join(f'{k} {v:,}' for k, v in published.SIZES.items())} "
        "images): they and ours can be compared only on CIFAR-10 proper, and this is not it.** What can be compared is which methods "
        "fall on which side of the retrained model."
    )
