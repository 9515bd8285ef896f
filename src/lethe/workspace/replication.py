"""A method's runs from further originals, which are trained as models/original is, by the seeds after run.seed.

Each original has a folder of its own, originals/<seed>, with the models, epoch tables and logits tables of the runs from it; images, splits
and retrained models are the workspace's. originals/<method>.json holds the scores of all runs of a method together."""

import shutil
from collections.abc import Callable
from dataclasses import replace

from lethe._util.files import atomic_write, digest, read_json, write_json
from lethe.evaluation import replication
from lethe.evaluation.replication import Replication
from lethe.evaluation.score import Score, score_model
from lethe.evaluation.verdict.judge import judge
from lethe.workspace import artifacts, scores
from lethe.workspace.layout import Layout
from lethe.workspace.pseudonyms import pseudonyms
from lethe.workspace.run_names import RunId
from lethe.workspace.workspace import Prepared


def further(prepared: Prepared) -> list[Prepared]:
    """Return the same images and splits, configured for the runs from each further original that run.originals asks for."""
    run = prepared.config.run
    return [at_original(prepared, seed) for seed in range(run.seed + 1, run.seed + run.originals)]


def at_original(prepared: Prepared, seed: int) -> Prepared:
    """Return the same images and splits, without a copy, configured for the runs from a further original.

    Args:
        prepared: the workspace.
        seed: of the original. The unlearning runs from it have this seed and those after it.

    Returns:
        The same images; run.workspace is the further original's folder, run.seed is `seed`.
    """
    config, folder = prepared.config, prepared.layout.original_runs(seed).relative_to(prepared.layout.root)
    run = config.run.model_copy(
        update={"workspace": config.run.workspace / folder, "seed": seed, "originals": 1, "workers": 1, "evaluate": False}
    )
    other = replace(prepared, config=replace(config, run=run))
    for name in ("hashes", "compute", "data"):
        object.__setattr__(other, name, getattr(prepared, name))
    return other


def share_secret(prepared: Prepared, other: Prepared) -> None:
    """Give the folder of a further original the workspace's secret, so that its runs have the same pseudonyms in MLflow.

    Args:
        prepared: the workspace.
        other: the further original's folder, as `at_original` returns it.
    """
    pseudonyms(prepared.config)  # makes it where there is none
    if not other.layout.secret.exists():
        with atomic_write(other.layout.secret, private=True) as temporary:
            shutil.copyfile(prepared.layout.secret, temporary)


def methods(layout: Layout) -> list[str]:
    """Return the methods that have runs from further originals, by name."""
    names = {run.stem for seed in layout.original_seeds() for run in Layout(layout.original_runs(seed)).models.glob("*.safetensors")}
    return sorted(name for name in names if name != "original" and RunId.parse(name).seed is None)


def read(prepared: Prepared, method: str) -> Replication | None:
    """Return what was scored of a method's runs from several originals; None where there is nothing, or only of other splits.

    Args:
        prepared: the workspace.
        method: its name.

    Returns:
        Measures and verdict over all originals.
    """
    path = prepared.layout.replication(method)
    found = Replication.from_json(read_json(path)) if path.exists() else None
    return found if found and found.split == prepared.hashes["split"] else None


def replicated(
    prepared: Prepared, method: str, recompute: bool = False, scored: Callable[[Prepared, str, Score], None] | None = None
) -> Replication | None:
    """Score all runs of a method from several originals, each next to the workspace's retrained models.

    Of a design in which one original has fewer runs than another, only as many of each are taken.

    Args:
        prepared: the workspace.
        method: its name.
        recompute: compute it even if the file is current.
        scored: called with each run from a further original, and its score, where these are computed.

    Returns:
        None where the method has no runs from a further original.

    Raises:
        UserError: a run has neither weights nor a logits table, or belongs to other images or splits.
    """
    here = [at_original(prepared, seed) for seed in prepared.layout.original_seeds()]
    places = [prepared, *(place for place in here if place.layout.weights(method).exists())]
    if len(places) < 2 or not prepared.layout.exists(method):
        return None
    names = [_runs(place, method) for place in places]
    fewest = min(map(len, names))
    tables = [[artifacts.logits(place, name) for name in [*of.values()][:fewest]] for place, of in zip(places, names, strict=True)]
    originals = [artifacts.logits(place, "original") for place in places]
    compared = scores.comparison(prepared, tables[0][0])
    used = [table.hash for table in (*(one for of in tables for one in of), *originals, *compared.references)]
    key, path = digest([*used, compared.unfit, str(sorted(compared.hashes.items()))]), prepared.layout.replication(method)
    stored = read(prepared, method)
    if stored and stored.tables == key and not recompute:
        return stored
    at_random = scores.drawn_at_random(prepared)
    each: dict[int, dict[int, Score]] = {}
    for place, of, own, original in zip(places, names, tables, originals, strict=True):
        seeds = [*of][:fewest]
        each[place.config.run.seed] = {
            seed: replace(score_model(table, compared.references, original, at_random=at_random), unfit=compared.unfit)
            for seed, table in zip(seeds, own, strict=True)
        }
        if scored and place is not prepared:
            for seed, score in each[place.config.run.seed].items():
                scored(place, of[seed], score)
    judged = judge([one for of in tables for one in of], compared.references, originals, at_random) if compared.references else None
    result = replication.aggregate(each, judged, key, prepared.hashes["split"])
    write_json(path, result.to_json())
    return result


def _runs(place: Prepared, method: str) -> dict[int, str]:
    """Seed -> name of the runs of a method from one original."""
    several = artifacts.seeds_of(place, method)
    return {seed: str(RunId(method, seed)) for seed in sorted(several)} or {place.config.run.seed: method}
