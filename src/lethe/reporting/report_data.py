"""The contents of a report: accuracies, epoch tables and alarms of a workspace, next to the published numbers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from lethe._util.checkout import command
from lethe._util.errors import UserError
from lethe.config.loader import Config
from lethe.data.images import Images
from lethe.data.splits import SPLITS
from lethe.engine.epoch_table import read_csv
from lethe.evaluation.replication import Replication
from lethe.evaluation.score import accuracy_and_loss
from lethe.evaluation.uncertainty import Estimate
from lethe.evaluation.verdict.accuracies import REFERENCES, Record, ResultSet, floor
from lethe.evaluation.verdict.words import Verdict
from lethe.models import checkpoint
from lethe.plots.report_figures import CHAIN
from lethe.recipes.paper_methods import PAPER_METHODS
from lethe.reporting import published
from lethe.workspace import bank, replication, scores
from lethe.workspace.layout import Layout
from lethe.workspace.prepare import load_existing
from lethe.workspace.provenance import matches
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared

# Sources next to whose results the published ones are shown: the images that they are of, and those of the demo. Beside other images, such
# as a user's own, they would be numbers of something else
PUBLISHED_NEXT_TO = ("cifar10", "digits")


@dataclass(frozen=True)
class ReportData:
    """All that a report shows.

    Attributes:
        results: `published` (where PUBLISHED_NEXT_TO names the source), `independent` (each method from a copy of the original) and
            `as_run` (the notebook's chain).
        source: data.source of the workspace.
        images: description of the data and the architecture.
        comparable: whether our numbers can be compared with the published ones: CIFAR-10, same split sizes and architecture.
        layout: the files of the workspace.
        retrained: accuracies by split of every retrained model: models/retrained and those of the reference bank.
        replications: method -> its runs from several originals, for methods that have such.
    """

    results: Mapping[str, ResultSet]
    source: str
    images: str
    comparable: bool
    layout: Layout
    retrained: Sequence[Mapping[str, float]] = ()
    replications: Mapping[str, Replication] = field(default_factory=dict)

    @property
    def with_methods(self) -> list[ResultSet]:
        """The result sets in which at least one method ran."""
        return [results for results in self.results.values() if results.methods]

    @property
    def shown(self) -> dict[str, ResultSet]:
        """The result sets that the report shows: all next to published numbers, otherwise those in which something ran."""
        theirs = "published" in self.results
        return {key: results for key, results in self.results.items() if theirs or results.methods or key == "independent"}

    @property
    def others(self) -> list[str]:
        """Variants, and methods that are not among the report's ten."""
        return [name for name in self.results["independent"].methods if name not in PAPER_METHODS]

    @property
    def seeds(self) -> dict[str, list[int]]:
        """Method -> its seeds, for methods whose accuracies are means over several seeds."""
        return {name: sorted(each) for name, each in self.results["independent"].by_seed.items()}

    def titled(self, results: ResultSet) -> str:
        """Title of a result set, with the data that it was measured on."""
        return f"{results.title} ({'CIFAR-10' if results.title == 'published' else self.source})"


def read(config: Config) -> ReportData:
    """Read scores and epoch tables of the workspace.

    Raises:
        UserError: there are no scores, or some were measured on other splits.
    """
    layout = Layout(config.workspace)
    if not _names(layout):
        raise UserError(f"{layout.all_scores} holds no scores; {repair_command('unlearn', config)} creates some")
    prepared = load_existing(config)
    images, split = prepared.images, prepared.hashes["split"]
    sizes = {name: len(index) for name, index in prepared.splits.items()}
    runs = {name: _accuracies(config, name, split) for name in _names(layout)}
    references = {name: row for name, row in runs.items() if name in REFERENCES}
    links = {name: str(RunId(name, chain="as_run")) for name in _names(layout, "as_run") if name in PAPER_METHODS}
    chain = {name: _accuracies(config, link, split) for name, link in links.items()}
    unfit = scores.stored_unfit_reference(layout)
    retrained = [runs["retrained"]] if "retrained" in runs else []
    retrained += [accuracy_and_loss(table)[0] for table in bank.tables(prepared, "retrained")]
    among = None if unfit else floor(retrained)
    of_chain = _measured(layout, {name: name for name in references} | links)
    results = {
        "published": ResultSet("published", published.SOURCE, "", published.SIZES, published.ALL),
        "independent": ResultSet(
            "independent",
            "Ours: each method starts from a copy of the original",
            f"{command('unlearn')} --method <method>",
            sizes,
            runs,
            _epochs(layout, {name: name for name in runs if name not in REFERENCES}),
            {} if unfit else _alarms(layout, {name: name for name in runs}),
            _by_seed(layout, runs, "accuracy"),
            _by_seed(layout, runs, "distance"),
            unfit,
            _verdicts(layout, {name: name for name in runs}),
            among,
            *_measured(layout, {name: name for name in runs}),
        ),
        "as_run": ResultSet(
            CHAIN,
            "Ours: the notebook's chain, in which each method starts from the result of the previous one, with its phases and scales",
            command("unlearn", "--method", "as_run"),
            sizes,
            references | chain,
            _epochs(layout, links),
            {} if unfit else _alarms(layout, links),
            unfit=unfit,
            verdicts=_verdicts(layout, links),
            floor=among,
            estimates=of_chain[0],
            targets=of_chain[1],
        ),
    }
    source, architecture = _source(config, images), _architecture(config)
    counts = ", ".join(f"{name} {number:,}" for name, number in sizes.items())
    comparable = source == "cifar10" and sizes == published.SIZES and architecture == published.ARCHITECTURE
    if source not in PUBLISHED_NEXT_TO:
        del results["published"]
    measured_on = f"data.source {source}, {len(images.classes)} classes ({counts} images), {architecture}"
    return ReportData(results, source, measured_on, comparable, layout, retrained, _replications(prepared))


def _replications(prepared: Prepared) -> dict[str, Replication]:
    """Scores of runs from several originals; those of other splits or settings, or of runs that are gone, are left out."""
    found = {name: replication.read(prepared, name) for name in replication.methods(prepared.layout)}
    return {name: one for name, one in found.items() if one}


def _names(layout: Layout, chain: str | None = None) -> list[str]:
    """References first, then the report's methods, then others. Single seeds are left out: they are in their method's own file."""
    scored = [run.method for run in layout.with_scores() if run.chain == chain and run.seed is None]
    known = [name for name in (*REFERENCES, *PAPER_METHODS) if name in scored]
    return known + [name for name in scored if name not in known]


def _accuracies(config: Config, name: str, split: str) -> dict[str, float]:
    layout = Layout(config.workspace)
    logits, path = layout.logits(name), layout.scores(name)
    if logits.exists() and not matches({"split": split}, checkpoint.metadata(logits)):
        stage = {"original": "pretrain", "retrained": "retrain"}.get(name, "evaluate")
        again = repair_command(stage, config, **({"method": RunId.parse(name).key} if stage == "evaluate" else {}))
        raise UserError(
            f"{path.relative_to(layout.root)} was measured on other splits than {layout.splits.relative_to(layout.root)} holds; "
            f"{again} measures it again"
        )
    accuracy = scores.read(path).accuracy
    if not {*SPLITS} <= {*accuracy}:
        raise UserError(f"{path} does not hold the accuracies of {', '.join(SPLITS)}")
    return {split: accuracy[split] for split in SPLITS}


def _alarms(layout: Layout, names: Mapping[str, str]) -> dict[str, str]:
    alarms = {name: scores.read(layout.scores(run)).alarm for name, run in names.items()}
    return {name: text for name, text in alarms.items() if text is not None}


def _measured(layout: Layout, names: Mapping[str, str]) -> tuple[dict[str, dict[str, Estimate]], dict[str, dict[str, Estimate]]]:
    """Run -> split -> its accuracy with the interval of its score, and what retrained models score in its place."""
    found = {
        name: {split: one for split in SPLITS if (one := scores.read(layout.scores(run)).measures.get(f"accuracy.{split}"))}
        for name, run in names.items()
    }
    estimates = {name: {split: one.estimate for split, one in each.items() if one.estimate} for name, each in found.items()}
    return estimates, {name: {split: one.reference for split, one in each.items() if one.reference} for name, each in found.items()}


def _verdicts(layout: Layout, names: Mapping[str, str]) -> dict[str, Verdict]:
    verdicts = {name: scores.read(layout.scores(run)).judged for name, run in names.items()}
    return {name: verdict for name, verdict in verdicts.items() if verdict is not None}


def _by_seed(layout: Layout, names: Iterable[str], key: str) -> dict[str, dict[int, dict[str, float]]]:
    """`accuracy` or `distance` by seed, for runs that are means over several seeds."""
    known = {name: scores.read(layout.scores(name)).seeds for name in names}
    results = {name: {seed: dict(getattr(one, key)) for seed, one in each.items() if getattr(one, key)} for name, each in known.items()}
    return {name: each for name, each in results.items() if each}


def _epochs(layout: Layout, names: Mapping[str, str]) -> dict[str, Record]:
    paths = {name: layout.epochs(run) for name, run in names.items()}
    return {name: read_csv(path) for name, path in paths.items() if path.exists()}


def _source(config: Config, images: Images) -> str:
    """data.source, inferred from the images: the report may be requested without the keys that made the workspace."""
    if images.ids[0].count("/") > 1:
        return "image_folder"
    return {"0": "digits", "airplane": "cifar10"}.get(images.classes[0], config.data.source)


def _architecture(config: Config) -> str:
    path = Layout(config.workspace).weights("original")
    metadata = checkpoint.metadata(path) if path.exists() else {}
    return metadata.get("architecture", config.model.architecture)
