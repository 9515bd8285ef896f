"""A method's runs from further originals, which are trained as models/original is, by the seeds after run.seed.

Each original has a folder of its own, originals/<seed>, with the models, epoch tables and logits tables of the runs from it; images, splits
and retrained models are the workspace's. originals/<method>.json holds the scores of all runs of a method together."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace

from lethe._util.files import atomic_write, digest, read_json, write_json
from lethe._util.log import log
from lethe.evaluation import replication, seed_aggregation
from lethe.evaluation.replication import Replication
from lethe.evaluation.score import Score, score_model
from lethe.evaluation.verdict.judge import judge
from lethe.models import checkpoint
from lethe.workspace import artifacts, scores
from lethe.workspace.layout import Layout
from lethe.workspace.provenance import made_otherwise
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
    """Return what was scored of a method's runs from several originals.

    Args:
        prepared: the workspace.
        method: its name.

    Returns:
        Measures and verdict over all originals; None where there is nothing, or only of other splits, of other runs than those that are
        results of the present settings, or of a request that chose its images in another way.
    """
    path = prepared.layout.replication(method)
    found = Replication.from_json(read_json(path)) if path.exists() else None
    if not found or found.split != prepared.hashes["split"]:
        return None
    if found.judged and not found.judged.fits(scores.drawn_at_random(prepared)):
        return None
    runs = _balanced(_of_these_settings(prepared, method)[0])
    return found if {seed: [*of] for seed, of in found.originals.items()} == {seed: [*of] for seed, of in runs.items()} else None


def replicated(
    prepared: Prepared, method: str, recompute: bool = False, scored: Callable[[Prepared, str, Score], None] | None = None
) -> Replication | None:
    """Score all runs of a method from several originals, each next to the workspace's retrained models.

    Runs by another recipe than the workspace's result, and from originals that were trained otherwise than the workspace's, are named in
    the log and left out. Of a design in which one original has fewer runs than another, only as many of each are taken.

    Args:
        prepared: the workspace.
        method: its name.
        recompute: compute it even if the file is current.
        scored: called with each run from a further original, and its score, where these are computed.

    Returns:
        None where the method has no runs from a further original by the present settings.

    Raises:
        UserError: a run has neither weights nor a logits table, or belongs to other images or splits.
    """
    if not prepared.layout.exists(method):
        return None
    runs, others = _of_these_settings(prepared, method)
    if others:
        log(f"{method}: results of other settings are left out: {', '.join(f'{place} ({why})' for place, why in others.items())}")
    names = _balanced(runs)
    if len(names) < 2:
        return None
    places = {seed: prepared if seed == prepared.config.run.seed else at_original(prepared, seed) for seed in names}
    tables = {seed: {n: artifacts.logits(places[seed], name) for n, name in of.items()} for seed, of in names.items()}
    originals = [artifacts.logits(place, "original") for place in places.values()]
    each_table = [table for of in tables.values() for table in of.values()]
    compared = scores.comparison(prepared, each_table[0])
    used = [table.hash for table in (*each_table, *originals, *compared.references)]
    key, path = digest([*used, compared.unfit, str(sorted(compared.hashes.items()))]), prepared.layout.replication(method)
    stored = read(prepared, method)
    if stored and stored.tables == key and not recompute:
        return stored
    at_random = scores.drawn_at_random(prepared)
    each: dict[int, dict[int, Score]] = {}
    for (seed, of), original in zip(tables.items(), originals, strict=True):
        each[seed] = {
            n: replace(score_model(table, compared.references, original, at_random=at_random), unfit=compared.unfit)
            for n, table in of.items()
        }
        if scored and places[seed] is not prepared:
            for n, score in each[seed].items():
                scored(places[seed], names[seed][n], score)
    judged = judge(each_table, compared.references, originals, at_random) if compared.references else None
    result = replication.aggregate(each, judged, key, prepared.hashes["split"])
    write_json(path, result.to_json())
    return result


def _of_these_settings(prepared: Prepared, method: str) -> tuple[dict[int, dict[int, str]], dict[str, str]]:
    """The runs of a method that belong together: by the recipe of the workspace's result, from originals trained as the workspace's.

    Returns seed of the original -> seed of the run -> its name, the workspace's own first; and folder -> what is other there. Nothing where
    the workspace's own files do not belong together, as when a command that makes them again was stopped."""
    own, first = prepared.layout, prepared.config.run.seed
    result, original = _about(own, method), _about(own, "original")
    runs, others = {first: _runs(own, method, first)}, {}
    if _otherwise(own, runs[first], result, original):
        return {}, {}
    for seed in own.original_seeds():
        place = Layout(own.original_runs(seed))
        if seed == first or not place.weights(method).exists():
            continue  # the original of run.seed is the workspace's own
        of = _runs(place, method, seed)
        if why := _otherwise(place, of, result, original):
            others[str(place.root.relative_to(own.root))] = why
        else:
            runs[seed] = of
    return runs, others


def _otherwise(place: Layout, runs: Mapping[int, str], result: Mapping[str, str], original: Mapping[str, str]) -> str:
    """What of an original and the runs from it was made otherwise than a result and its original, by their metadata; "" if nothing was."""
    if wrong := _apart(place, "original", original):
        return f"its original's {wrong[0]}"
    start = checkpoint.model_hash(place.weights("original")) if place.weights("original").exists() else ""
    for name in runs.values():
        if wrong := _apart(place, name, result):
            return f"its {wrong[0]}"
        if start and _about(place, name).get("original", start) != start:
            return "it started from another original than is there now"
    return ""


def _apart(place: Layout, name: str, wanted: Mapping[str, str]) -> list[str]:
    """Under which keys a file says that it was made otherwise. A logits table without its model does not state all of them."""
    found = _about(place, name)
    return [key for key in made_otherwise(wanted, found) if key in found or place.weights(name).exists()]


def _about(place: Layout, name: str) -> dict[str, str]:
    """Metadata of a run's weights, else of its logits table, without the split, which a table of an original has too; {} where there is
    neither."""
    if place.weights(name).exists():
        return checkpoint.metadata(place.weights(name))
    found = checkpoint.metadata(place.logits(name)) if place.logits(name).exists() else {}
    return {key: text for key, text in found.items() if key != "split"}


def _runs(place: Layout, method: str, seed: int) -> dict[int, str]:
    """Seed -> name of the runs of a method from one original; `seed`: of the original, and of the run if it is a single one."""
    several = seed_aggregation.listed(_about(place, method))
    return {each: str(RunId(method, each)) for each in sorted(several)} or {seed: method}


def _balanced(runs: Mapping[int, Mapping[int, str]]) -> dict[int, dict[int, str]]:
    """As many runs of each original as the one with the fewest has."""
    fewest = min(map(len, runs.values()), default=0)
    return {seed: dict([*of.items()][:fewest]) for seed, of in runs.items()}
