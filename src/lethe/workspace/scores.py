"""What a model scores: its logits table, read once in float32, and every measure of it. The only reader of the test split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lethe._util.errors import UserError
from lethe._util.files import digest, read_json, short, write_json
from lethe.config.loader import STAGE
from lethe.evaluation import catalogue, registry
from lethe.evaluation import seed_aggregation as seeds
from lethe.evaluation.context import EvaluationContext
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.score import Score, accuracy_and_loss, measure_results, score_model
from lethe.models import checkpoint
from lethe.workspace import artifacts, bank
from lethe.workspace.layout import Layout
from lethe.workspace.run_names import RunId
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared


def scores(prepared: Prepared, name: str, anew: bool = False) -> Score:
    """The score of a run, from scores/<name>.json.

    It is computed if the file is missing, belongs to other logits tables than exist now, or `anew`; that needs a model only if a table is
    missing. The score of a method with several seeds holds their means (`seed_aggregation.aggregate`)."""
    for reference in prepared.config.run.measures or ():
        registry.load(reference)
    model = artifacts.logits(prepared, name)
    if several := seeds.listed(model.about):
        return _several(prepared, name, several, anew)
    beside = _beside(prepared, model)
    path, of = prepared.layout.scores(name), beside.of
    known = read(path) if path.exists() else None
    if not anew and known and known.tables == of:
        return known
    score = replace(score_model(beside.model, beside.references, beside.original, beside.unlearned), tables=of)
    if score != known:  # else the file keeps its modification time
        write_json(path, score.to_json())
    return score


def read(path: Path) -> Score:
    """Read a score file. Raises UserError, naming it, if it is missing or not a score file."""
    return Score.from_json(read_json(path), str(path))


def _several(prepared: Prepared, name: str, several: Mapping[int, str], anew: bool) -> Score:
    run = RunId.parse(name)
    each = {seed: scores(prepared, str(run.with_seed(seed)), anew) for seed in several}
    for seed, weights_ in several.items():
        if each[seed].tables["model"] != weights_:
            again = repair_command("unlearn", prepared.config, method=name)
            raise UserError(
                f"{name}: the model of seed {seed} is {each[seed].tables['model']}, and {weights_} belongs to the others; {again} mends it"
            )
    first, model = next(iter(each.values())), artifacts.logits(prepared, name)
    beside = {seed: there_ for seed in several if (there_ := retrained(prepared, seed))}
    path, of = prepared.layout.scores(name), {**first.tables} | _read_as(model)
    of["seeds"] = {str(seed): one.tables for seed, one in each.items()}
    known = read(path) if path.exists() else None
    if not anew and known and known.tables == of:
        return known
    mean = seeds.aggregate(each, beside)
    all_ = _beside(prepared, model, [artifacts.logits(prepared, str(run.with_seed(seed))) for seed in several])
    context = EvaluationContext(all_.model, all_.references, all_.original, all_.unlearned)
    together = [each for each in catalogue.all_measures() if each.of_several]
    alone = {each.id for each in together}  # a single seed has no value for these
    measures = {id_: result for id_, result in mean.measures.items() if id_ not in alone} | measure_results(context, together)
    tier = registry.highest_tier(len(context.references), len(context.unlearned))
    score = replace(mean, measures=measures, tier=tier, tables=of)
    if score != known:
        write_json(path, score.to_json())
    return score


def retrained(prepared: Prepared, seed: int | None = None) -> dict[str, float] | None:
    """Accuracies by split of the retrained model that a result of this seed is paired with: the bank's of that seed, else the one there
    is; None where there is none."""
    for made in bank.tables(prepared, "retrained") if seed is not None else ():
        if made.about["seed"] == str(seed):
            return accuracy_and_loss(made)[0]
    if not artifacts.available(prepared, "retrained"):
        return None
    return {**scores(prepared, "retrained").accuracy}


def fresh(prepared: Prepared, name: str) -> bool:
    """Whether the score file is there, and of the tables that are there now."""
    path = prepared.layout.scores(name)
    return path.exists() and read(path).tables == _beside(prepared, artifacts.logits(prepared, name)).of


@dataclass(frozen=True)
class Beside:
    """A model's table and those that it is measured beside, as far as they are there.

    `references`: the bank where there is one, else the retrained model, which is none of its own: it takes a second one to say how far
    apart two of them are. `unlearned`: of several seeds those of all, of the original the bank's."""

    model: LogitsTable
    references: Sequence[LogitsTable]
    original: LogitsTable | None
    unlearned: Sequence[LogitsTable]

    @property
    def of(self) -> dict[str, Any]:
        """Which tables, by short hashes of the weights they were read from; and how, for what they hold beside logits."""
        found: dict[str, Any] = {"model": _short(self.model)} | _read_as(self.model)
        if self.original:
            found["original"] = _short(self.original)
        if len(self.references) == 1:
            found["retrained"] = _short(self.references[0])
        elif self.references:
            found["bank"] = {"models": len(self.references), "hash": short(digest(map(_short, self.references)))}
        if self.unlearned:
            found["unlearned"] = {"models": len(self.unlearned), "hash": short(digest(map(_short, self.unlearned)))}
        return found


def _short(made: LogitsTable) -> str:
    return short(made.about.get("model", made.hash))


def _read_as(made: LogitsTable) -> dict[str, str]:
    return {key: short(made.about[key]) for key in ("reading", "swapped", "shadows") if key in made.about}


def _beside(prepared: Prepared, model: LogitsTable, unlearned: Sequence[LogitsTable] = ()) -> Beside:
    own = model.name
    references = bank.tables(prepared, "retrained")
    if own != "retrained" and not references and artifacts.available(prepared, "retrained"):
        references = [artifacts.logits(prepared, "retrained")]
    if own == "original":
        others = bank.tables(prepared, "original")
        return Beside(model, references, model, [model, *others] if others else [])
    original = None
    if artifacts.available(prepared, "original") and (own != "retrained" or references):
        original = artifacts.logits(prepared, "original")
    return Beside(model, references, original, unlearned)


WEAK = 10.0  # points of validation accuracy below the original: a retrained model this low was trained by another recipe


def baseline_warning(layout: Layout) -> str:
    """Warn about a retrained model that was probably not trained like the original; "" if nothing suggests so.

    That is the case if the original is a given checkpoint and the retrained model, trained here, is more than WEAK points worse on
    validation (on the classes that retain still contains, for whole-class requests)."""
    models, files = [layout.weights(name) for name in STAGE], [layout.scores(name) for name in STAGE]
    if not all(path.exists() for path in (*models, *files)):
        return ""
    theirs, ours = (checkpoint.metadata(path).get("provenance") for path in models)
    both = [read(path) for path in files]
    retained = [value for score in both if (value := score.value("accuracy_of.retained_classes.validation")) is not None]
    original, retrained_ = retained if len(retained) == 2 else [score.accuracy.get("validation", 0.0) for score in both]
    if theirs != "unknown" or ours != "trained" or original - retrained_ <= WEAK:
        return ""
    return (
        f"retrained is {original - retrained_:.1f} points below original on validation, so it is no valid baseline for it: it was trained "
        "with pretrain.*, retrain.*; set these to how the original was trained, or give --retrain.checkpoint"
    )
