"""Score files: every measure of a logits table, compared with the tables of the original and of retrained models.

With `artifacts` the only reader of the test split."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lethe._util.errors import UserError
from lethe._util.files import digest, read_json, short, write_json, write_text
from lethe.config.loader import STAGE
from lethe.engine import epoch_table
from lethe.evaluation import catalogue, reference, registry, seed_aggregation
from lethe.evaluation.context import EvaluationContext
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.score import FORMAT, Score, accuracy_and_loss, measure_results, score_model
from lethe.evaluation.verdict.judge import judge
from lethe.models import checkpoint
from lethe.workspace import artifacts, bank
from lethe.workspace.layout import Layout
from lethe.workspace.read_model import PERTURBED
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared

OTHER_TABLES = "belongs to other tables than exist now"
# By whether the present request draws its images at random; the split is the same
OTHER_REQUEST = {
    False: "was judged for a request that drew its images at random, and the present one names them",
    True: "was judged for a request that named its images, and the present one draws them at random",
}


def scores(prepared: Prepared, name: str, recompute: bool = False) -> Score:
    """Return the score of a run, from scores/<name>.json.

    It is computed if the file is missing, belongs to other logits tables than exist now, or was judged for a request that chose its images
    in another way; that needs a model only if a table is missing.
    The score of a method with several seeds holds their means (`seed_aggregation.aggregate`).

    Args:
        prepared: the images and splits.
        name: the run.
        recompute: compute it even if the file is current.

    Returns:
        The score; a measure that can't be computed says in it what is missing.

    Raises:
        UserError: the run does not exist, or its files do not belong together.
    """
    for spec in prepared.config.run.measures or ():
        registry.load(spec)
    model = artifacts.logits(prepared, name)
    if several := seed_aggregation.listed(model.about):
        return _mean_score(prepared, name, several, recompute)
    compared = comparison(prepared, model)
    stored = _stored(prepared, name)
    if not recompute and stored and _belongs(prepared, stored, compared.hashes, compared.contents):
        return _written(stored, prepared, name, stored)
    return _written(_single(prepared, compared), prepared, name, stored)


def recomputed(prepared: Prepared, name: str) -> Score:
    """Compute the score of a run from its logits tables, whatever its score file holds. Nothing is written.

    Args:
        prepared: the images and splits.
        name: the run.

    Returns:
        The score; of several seeds their mean.

    Raises:
        UserError: the run does not exist, or its files do not belong together.
    """
    for spec in prepared.config.run.measures or ():
        registry.load(spec)
    model, run = artifacts.logits(prepared, name), RunId.parse(name)
    each = {seed: recomputed(prepared, str(run.with_seed(seed))) for seed in seed_aggregation.listed(model.about)}
    return _mean(prepared, name, model, each) if each else _single(prepared, comparison(prepared, model))


def fault(prepared: Prepared, name: str) -> str:
    """Say why a score file is not what the logits tables that exist now show, without computing it again.

    Args:
        prepared: the images and splits.
        name: the run.

    Returns:
        What is wrong: the tables it was computed from, the request it was judged for, its tier, or its number of retrained models; "" where
        nothing is.

    Raises:
        UserError: files do not belong together, or can't be read.
    """
    stored, model = read(prepared.layout.scores(name)), artifacts.logits(prepared, name)
    runs = [str(RunId.parse(name).with_seed(seed)) for seed in seed_aggregation.listed(model.about)]
    compared = comparison(prepared, model, [artifacts.logits(prepared, run) for run in runs])
    each = {n: read(prepared.layout.scores(run)) for n, run in zip(seed_aggregation.listed(model.about), runs, strict=True)}
    tables, contents = _of_several(model, each) if each else (compared.hashes, compared.contents)
    known, now = ({key: value for key, value in each.items() if key != "unfit"} for each in (stored.tables, tables))
    if known != now:  # the line that says why a reference is unfit names a command, which depends on the keys of the present one
        return OTHER_TABLES
    if stored.contents not in ("", contents):
        return "was computed from tables that held something else than they do now"
    if otherwise := _judged_otherwise(prepared, stored):
        return otherwise
    references, tier = len(compared.references), registry.highest_tier(len(compared.references), len(compared.unlearned) or 1)
    if (stored.tier, stored.references) != (tier, references):
        return f"states tier T{stored.tier} and {stored.references} retrained models; there are {references}, which is T{tier}"
    return ""


def read(path: Path) -> Score:
    """Read a score file. Raises UserError, naming it, if it is missing or not a score file."""
    return Score.from_json(read_json(path, FORMAT), str(path))


def _mean_score(prepared: Prepared, name: str, seeds: Mapping[int, str], recompute: bool) -> Score:
    """Return the score that represents several seeds; `seeds`: seed -> short hash of its weights."""
    run = RunId.parse(name)
    each = {seed: scores(prepared, str(run.with_seed(seed)), recompute) for seed in seeds}
    for seed, weights in seeds.items():
        if each[seed].tables["model"] != weights:
            repair, found = repair_command("unlearn", prepared.config, method=name), each[seed].tables["model"]
            raise UserError(f"{name}: the model of seed {seed} is {found}, and {weights} belongs to the others; {repair} repairs it")
    model = artifacts.logits(prepared, name)
    stored = _stored(prepared, name)
    if not recompute and stored and _belongs(prepared, stored, *_of_several(model, each)):
        return _written(stored, prepared, name, stored)
    return _written(_mean(prepared, name, model, each), prepared, name, stored)


def _of_several(model: LogitsTable, each: Mapping[int, Score]) -> tuple[dict[str, Any], str]:
    """What the score of several seeds belongs to: short hashes of the weights, and the hash of the tables' contents."""
    tables = {**next(iter(each.values())).tables} | _reading(model)
    tables["seeds"] = {str(seed): one.tables for seed, one in each.items()}
    return tables, short(digest([model.hash, *(one.contents for one in each.values())]))


def _mean(prepared: Prepared, name: str, model: LogitsTable, each: Mapping[int, Score]) -> Score:
    run = RunId.parse(name)
    paired = {seed: accuracy for seed in each if (accuracy := paired_reference(prepared, seed))}
    mean, (tables, contents) = seed_aggregation.aggregate(each, paired), _of_several(model, each)
    compared = comparison(prepared, model, [artifacts.logits(prepared, str(run.with_seed(seed))) for seed in each])
    context = EvaluationContext(compared.model, compared.references, compared.original, compared.unlearned)
    of_several = [measure for measure in catalogue.all_measures() if measure.of_several]
    ids = {measure.id for measure in of_several}  # a single seed has no value for these
    measures = {id_: result for id_, result in mean.measures.items() if id_ not in ids} | measure_results(context, of_several)
    tier = registry.highest_tier(len(context.references), len(context.unlearned))
    judged = judge(compared.unlearned, compared.references, compared.original, drawn_at_random(prepared)) if compared.references else None
    return replace(mean, measures=measures, tier=tier, tables=tables, unfit=compared.unfit, judged=judged, contents=contents)


def _single(prepared: Prepared, compared: "Compared") -> Score:
    score = score_model(compared.model, compared.references, compared.original, compared.unlearned, drawn_at_random(prepared))
    return replace(score, tables=compared.hashes, unfit=compared.unfit, contents=compared.contents)


def _stored(prepared: Prepared, name: str) -> Score | None:
    path = prepared.layout.scores(name)
    return read(path) if path.exists() else None


def _written(score: Score, prepared: Prepared, name: str, stored: Score | None) -> Score:
    if score != stored:  # else the file keeps its modification time
        write_json(prepared.layout.scores(name), score.to_json())
    _write_metrics(prepared.layout, name, score)
    return score


def _write_metrics(layout: Layout, name: str, score: Score) -> None:
    """Write what `dvc metrics` compares between commits: a score has hundreds of numbers, and texts."""
    run, path = RunId.parse(name), layout.metrics(name)
    if run.seed is not None or run.chain is not None:
        return
    numbers = {"accuracy": {split: round(value, 2) for split, value in score.accuracy.items() if split != "validation"}}
    left = score.judged.memory_left if score.judged and not score.unfit else None
    content = numbers | ({} if left is None else {"memory_left": round(left.value, 1)})
    text = json.dumps(content, indent=2) + "\n"
    if not path.exists() or path.read_bytes() != text.encode():  # whatever is there is replaced: all of it is in the score
        write_text(path, text)


def _belongs(prepared: Prepared, stored: Score, tables: Mapping[str, Any], contents: str) -> bool:
    """Whether a score was computed from these tables and judged for such a request; one of an earlier version does not say what they held,
    nor for which request."""
    return stored.tables == tables and stored.contents in ("", contents) and not _judged_otherwise(prepared, stored)


def _judged_otherwise(prepared: Prepared, stored: Score) -> str:
    """Say why the verdict of a score is none on the request as it is stated now; "" where it is one.

    The same images may be drawn by one request and listed by the next, and their splits are equal then."""
    at_random = drawn_at_random(prepared)
    return "" if not stored.judged or stored.judged.fits(at_random) else OTHER_REQUEST[at_random]


def drawn_at_random(prepared: Prepared) -> bool:
    """Return whether the forget images of the workspace were drawn at random, rather than named or of a whole class."""
    forget = prepared.config.data.forget
    return forget.fraction is not None or forget.count is not None


def paired_reference(prepared: Prepared, seed: int) -> dict[str, float] | None:
    """Return the accuracies of the retrained model that a result of a seed is compared with.

    It is the bank's model of the same seed, else models/retrained.

    Args:
        prepared: the images and splits.
        seed: of the result.

    Returns:
        Accuracies in percent by split; None without either model, and where they are no reference (`unfit_reference`).

    Raises:
        UserError: a table of the bank was made otherwise (as `bank.tables`), or the retrained model can't be scored (as `scores`).
    """
    if unfit_reference(prepared):
        return None
    for table in bank.tables(prepared, "retrained"):
        if table.about["seed"] == str(seed):
            return accuracy_and_loss(table)[0]
    if not artifacts.available(prepared, "retrained"):
        return None
    return {**scores(prepared, "retrained").accuracy}


def is_current(prepared: Prepared, name: str) -> bool:
    """Return whether a run has a score file that belongs to the logits tables that exist now and to the request as it is stated.

    Args:
        prepared: the images and splits.
        name: the run.

    Returns:
        True if its score can be read as it is; False also where there is no score file.

    Raises:
        UserError: there is a file of that name that is not a score file, or the tables can't be read or do not belong to the images and
            splits.
    """
    path = prepared.layout.scores(name)
    if not path.exists():
        return False
    compared = comparison(prepared, artifacts.logits(prepared, name))
    return _belongs(prepared, read(path), compared.hashes, compared.contents)


@dataclass(frozen=True)
class Compared:
    """A model's logits table and those that it is compared with, as far as they exist.

    Attributes:
        model: its table.
        references: of retrained models: the bank's, else that of models/retrained. The latter is no reference of its own: how far apart
            two retrained models are takes a second one.
        original: of the model before unlearning.
        unlearned: of a result of several seeds all of theirs, of the original it and the bank's originals.
        unfit: why retrained models that exist are no reference (`unfit_reference`); they are then not among `references`.
    """

    model: LogitsTable
    references: Sequence[LogitsTable]
    original: LogitsTable | None
    unlearned: Sequence[LogitsTable]
    unfit: str = ""

    @property
    def hashes(self) -> dict[str, Any]:
        """Short hashes of the weights that the tables were read from, and of the way of reading: what a score file belongs to."""
        hashes: dict[str, Any] = {"model": _weights(self.model)} | _reading(self.model) | self._perturbed
        if self.original:
            hashes["original"] = _weights(self.original)
        if len(self.references) == 1:
            hashes["retrained"] = _weights(self.references[0])
        elif self.references:
            hashes["bank"] = {"models": len(self.references), "hash": short(digest(map(_weights, self.references)))}
        if self.unlearned:
            hashes["unlearned"] = {"models": len(self.unlearned), "hash": short(digest(map(_weights, self.unlearned)))}
        if self.unfit:
            hashes["unfit"] = short(digest([self.unfit]))
        return hashes

    @property
    def _perturbed(self) -> dict[str, str]:
        """How many perturbed copies the model and the references classified, unless all of them all."""
        numbers = [table.about.get(PERTURBED, "all") for table in (self.model, *self.references)]
        return {} if {*numbers} == {"all"} else {PERTURBED: ",".join(dict.fromkeys(numbers))}

    @property
    def contents(self) -> str:
        """Short hash of everything in the tables: logits, labels, splits and columns."""
        others = [self.original] if self.original else []
        return short(digest(table.hash for table in (self.model, *others, *self.references, *self.unlearned)))


def _weights(table: LogitsTable) -> str:
    return short(table.about.get("model", table.hash))


def _reading(table: LogitsTable) -> dict[str, str]:
    return {key: short(table.about[key]) for key in ("reading", "swapped", "shadows") if key in table.about}


def comparison(prepared: Prepared, model: LogitsTable, unlearned: Sequence[LogitsTable] = ()) -> Compared:
    """Return what a model is compared with.

    Args:
        prepared: the images and splits.
        model: its table.
        unlearned: the tables of all seeds, where it represents several.

    Returns:
        The tables of the references and the original, as far as they exist; and why the retrained model is no reference, if it is none.

    Raises:
        UserError: files of the workspace do not belong together.
    """
    own, unfit = model.name, unfit_reference(prepared)
    references = [] if unfit else bank.tables(prepared, "retrained")
    if own != "retrained" and not references and not unfit and artifacts.available(prepared, "retrained"):
        references = [artifacts.logits(prepared, "retrained")]
    if own == "original":
        others = bank.tables(prepared, "original")
        return Compared(model, references, model, [model, *others] if others else [], unfit)
    original = None
    if artifacts.available(prepared, "original") and (own != "retrained" or references):
        original = artifacts.logits(prepared, "original")
    return Compared(model, references, original, unlearned, unfit if own != "retrained" else "")


def unfit_reference(prepared: Prepared) -> str:
    """Judge the retrained models that everything would be compared with: those of the bank if there are any, else models/retrained.

    Args:
        prepared: the images and splits.

    Returns:
        One line for the user, with what to change, where they fall short of the original by the rule of `reference.shortfall`; ""
        where they do not, and where there is no original or no retrained model.

    Raises:
        UserError: files of the workspace do not belong together.
    """
    if not artifacts.available(prepared, "original"):
        return ""
    several = bank.tables(prepared, "retrained")
    if not several and not artifacts.available(prepared, "retrained"):
        return ""
    tables = several or [artifacts.logits(prepared, "retrained", perturbed=False)]
    short_of = reference.unfit(artifacts.logits(prepared, "original", perturbed=False), tables)
    if not short_of:
        return ""
    name = f"the mean of the {len(several)} retrained models of the bank" if several else "the retrained model"
    return f"{name} is no reference: it gets {short_of}, so nothing is compared with it; {_remedy(prepared, bool(several))}"


def unfit_by_epochs(prepared: Prepared) -> str:
    """Judge the retrained model as soon as it is made, where logits tables may not be written: by the last rows of both epoch tables.

    Args:
        prepared: the images and splits.

    Returns:
        As `unfit_reference`, by what both models know of their training images; "" where one of them is not made yet.
    """
    tables = [prepared.layout.epochs(kind) for kind in STAGE]
    if not all(path.exists() for path in tables):
        return ""
    last = [epoch_table.read_csv(path)[-1] for path in tables]
    original, retrained = ({split: row[f"{split}.accuracy"] for split in ("retain", "forget")} for row in last)
    short_of = reference.retain_shortfall(original, retrained, {split: len(index) for split, index in prepared.splits.items()})
    return f"the retrained model is no reference: it gets {short_of}; {_remedy(prepared, False)}" if short_of else ""


def _remedy(prepared: Prepared, several: bool) -> str:
    """What to change where a retrained model falls short, by how it and the original were made."""
    retrain, path = repair_command("retrain", prepared.config), prepared.layout.weights("original")
    if prepared.config.retrain.checkpoint and not several:
        return "give a retrain.checkpoint that was trained like the original, without the forget images"
    given = path.exists() and checkpoint.metadata(path).get("provenance") == "unknown"
    if given:
        how = "set pretrain.* and retrain.epochs to how the original was trained, or give retrain.checkpoint"
    else:
        how = "raise pretrain.min_steps or retrain.epochs"
    return f"{how}; {retrain} then makes it again"


def stored_unfit_reference(layout: Layout) -> str:
    """Return the line of `unfit_reference` from the score file of the original, without reading logits tables; "" if there is none."""
    path = layout.scores("original")
    return read(path).unfit if path.exists() else ""
