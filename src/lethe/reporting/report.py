"""The report of a workspace: Tables 7 and 8 with published and own results, four figures, and the findings in words.

All numbers come from scores/, epochs/ and data/, and from published.py. The report contains no time and no path, so that equal
results give equal bytes (DVC hashes it); report.html alone has the addresses of MLflow runs, where they are on a server."""

from collections.abc import Mapping

from lethe._util.files import atomic_write, read_json
from lethe.config.loader import Config
from lethe.evaluation import seed_aggregation
from lethe.evaluation.verdict.accuracies import ResultSet, compare_neighbours, discriminates, label
from lethe.reporting import narrative, published, report_page, tables
from lethe.reporting.figure_records import figures
from lethe.reporting.report_data import ReportData, read
from lethe.workspace import copies
from lethe.workspace.layout import Layout
from lethe.workspace.run_names import RunId

TITLE = "Machine unlearning: {methods} compared with a model that never saw the forgotten images"
TABLES = {"table_7": ("Table 7: the six models", published.TABLE_7), "table_8": ("Table 8: the four hybrids", published.TABLE_8)}
# Files that not every report has
OPTIONAL = (
    "measures",
    *(f"figure_{n}" for n in (1, 2, 3, 4)),
    *TABLES,
    "table_others",
    "originals",
    *(f"table_{of}_neighbours" for of in ("7", "8", "others")),
)
PAGE = "As a page, with the verdicts first: [report.html](report.html)"
HOW_TO_READ = (
    "Compare every row with *retrained*, the same training without the forget set: the number in brackets is the signed distance from "
    "it in points, and perfect unlearning is 0 everywhere. Low forget accuracy is not a success in itself: the retrained model still "
    "classifies most of a random forget set correctly, about as much as of the test set. Accuracies are in percent, {each}. The findings "
    "below follow from the numbers by fixed rules; *chance* is the range that the cards have, too, in which 95 % of retrained "
    "models are expected: beside several retrained models Student's prediction interval, beside a single retrained model the interval of a "
    "difference of two accuracies on this number of images (Clopper and Pearson, Zou and Donner), without the spread between seeds."
)


def report(config: Config) -> None:
    """Write report/report.html, report.md, measures.csv, table_*.csv, figure_*.csv and figure_*.png; nothing is written before all are
    complete."""
    layout, data = Layout(config.workspace), read(config)
    measures = tables.measures_record(layout)
    chain = (str(RunId(name, chain="as_run")) for name in data.results["as_run"].methods)
    links = report_page.run_links([*data.results["independent"].accuracies, *chain])
    files = ({"measures.csv": tables.to_csv(measures)} if measures else {}) | render(data, links)
    for name, content in files.items():
        with atomic_write(layout.report / name) as temporary:
            temporary.write_bytes(content)
    for name in (f"{stem}{suffix}" for stem in OPTIONAL for suffix in (".csv", ".png")):
        if name not in files:  # left by an earlier report, and out of date
            (layout.report / name).unlink(missing_ok=True)
    print(layout.report / "report.md")
    print(layout.report / "report.html")
    print(tables.console_table(data))


def render(data: ReportData, links: Mapping[str, str]) -> dict[str, bytes]:
    """The files of the report: name -> content; report.md is the last.

    Args:
        data: the contents of the report.
        links: run -> address of its MLflow run, for report.html.

    Returns:
        Figures as PNG, all others as UTF-8.
    """
    files: dict[str, bytes] = {}
    unfit = data.results["independent"].unfit
    parts = [
        f"# {TITLE.format(methods='ten methods' if 'published' in data.results else 'methods')}",
        "As a page, with the verdicts first: [report.html](report.html)",
        _preface(data),
        *([f"**No verdict**: {unfit}."] if unfit else []),
        *_copies(data),
    ]
    for name, title, methods, keys in _sections(data):
        files[f"{name}.csv"] = tables.to_csv(tables.record(data, methods, keys))
        table = tables.markdown_table(data, methods, keys)
        legend = [f"{tables.MARK}: over-forgets, see the alarm below."] if tables.MARK in table else []
        parts += [f"## {title}", table, *legend, f"Data: [{name}.csv]({name}.csv)"]
        if differences := compare_neighbours(data.results["independent"], methods):
            files[f"{name}_neighbours.csv"] = tables.to_csv(tables.neighbours_record(differences))
            parts += [tables.markdown_neighbours(differences), f"Data: [{name}_neighbours.csv]({name}_neighbours.csv)"]
    if data.replications:
        files["originals.csv"] = tables.to_csv(tables.originals_rows(data.replications))
        parts += ["## Several originals", tables.markdown_originals(data.replications), "Data: [originals.csv](originals.csv)"]
    parts += ["## What the numbers show", HOW_TO_READ.format(each=_number_of_runs(data))]
    for results in data.shown.values():
        parts += [f"### {results.title.capitalize()}", f"{results.about}.", "\n".join(f"- {line}" for line in _findings(data, results))]
    runs = "means over seeds where there are several, with the curves of the first" if data.seeds else "one run each"
    note = f"Ours: {data.images}; {runs}. M: Model, H: Hybrid. Grey: retrained, and how far others may differ by chance (95 %)."
    for name, figure in figures(data).items():
        parts.append(f"## {figure.title}")
        if figure.empty:
            parts.append("Not run: nothing to draw.")
            continue
        files |= {f"{name}.csv": tables.to_csv(figure.record), f"{name}.png": figure.draw(figure.record, title=figure.title, note=note)}
        parts += [f"![{figure.title}]({name}.png)", f"{figure.caption} Data: [{name}.csv]({name}.csv)"]
    files["report.html"] = report_page.html(data, links).encode()
    return files | {"report.md": ("\n\n".join(parts) + "\n").encode()}


def _sections(data: ReportData) -> list[tuple[str, str, list[str], list[str]]]:
    """Tables of the report: name, title, methods and result sets; without published numbers only what ran."""
    sections, theirs = [], "published" in data.results
    for name, (title, rows) in TABLES.items():
        keys = [key for key, results in data.shown.items() if theirs or {*rows} & {*results.methods}]
        methods = [row for row in rows if theirs or any(row in data.results[key].methods for key in keys)]
        if methods:
            sections.append((name, title if theirs else title.rpartition(" ")[2].capitalize(), methods, keys))  # not all six, or four
    if data.others:
        sections.append(("table_others", "Variants and other methods" if sections else "Methods", data.others, ["independent"]))
    return sections


def _copies(data: ReportData) -> list[str]:
    """What the workspace knows of copies among its images; nothing where there are none, or it was not looked for."""
    path = data.layout.copies("json")
    lines = copies.sentences(read_json(path), dict(data.results["independent"].sizes)) if path.exists() else []
    return [f"**Copies**: {'; '.join(lines)}. data/copies.csv names them."] if lines else []


def _findings(data: ReportData, results: ResultSet) -> list[str]:
    lines, theirs = narrative.findings(results), data.results.get("published")
    lines += [
        f"**Alarm**: {label(name)} over-forgets: {alarm}{narrative.beyond_chance(alarm)}."
        for name, alarm in results.alarms.items()
        if alarm
    ]
    if theirs is None or results is theirs or not discriminates(results):
        return lines
    more = [narrative.compare_verdicts(results, theirs), narrative.compare_accuracies(results, theirs) if data.comparable else ""]
    return lines + [line for line in more if line]


def _number_of_runs(data: ReportData) -> str:
    """How many runs a number of the tables is taken over."""
    methods = [f"{label(name)} (seeds {seed_aggregation.seed_range(each)})" for name, each in data.seeds.items()]
    if not methods:
        return "each of one run"
    return (
        f"for {', '.join(methods)} mean ± half the 95 % interval over seeds (Student's t; "
        f"{seed_aggregation.ONE_ORIGINAL}), with distances paired by seed if each seed has "
        "a retrained model, otherwise from the single one; for all others of one run"
    )


def _preface(data: ReportData) -> str:
    first = f"Our results were measured on {data.images}. "
    if "published" not in data.results:
        return first.strip()
    if data.comparable:
        return first + "This is CIFAR-10 with the published architecture and split sizes: published and own results can be compared."
    return first + (
        f"**The published numbers are for CIFAR-10 with {published.ARCHITECTURE} "
        f"({', '.join(f'{k} {v:,}' for k, v in published.SIZES.items())} images): they can only be compared with results on CIFAR-10, and "
        "these are not.** What can be compared is which methods end on which side of the retrained model."
    )
