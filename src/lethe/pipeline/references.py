"""The original and the retrained reference: loaded where they belong to the settings, taken from a given file, or trained."""

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn import Module

from lethe._util import dvc_stage, memory
from lethe._util.errors import RunFailed, UserError
from lethe._util.files import read_json, short, write_text
from lethe._util.log import log
from lethe.config.loader import STAGE, Config
from lethe.data import sources, splits
from lethe.engine import engine
from lethe.engine.engine import Epoch
from lethe.engine.epoch_table import MEASURED, epoch_row, to_csv
from lethe.evaluation import inference
from lethe.models import architectures, checkpoint, fitting, foreign, initial
from lethe.models.class_order import positions, reorder
from lethe.pipeline import given_original
from lethe.pipeline.reference_sample import ReferenceSample
from lethe.pipeline.runner import KEYS, held, is_left, metadata, reference_metadata, start
from lethe.recipes.recipe import Phase, Recipe
from lethe.workspace import artifacts, erased, read_model, scores
from lethe.workspace.layout import Layout
from lethe.workspace.plan import PlannedRun, plan_reference
from lethe.workspace.prepare import remember
from lethe.workspace.provenance import mismatch, unknown
from lethe.workspace.request import source_keys
from lethe.workspace.settings import repair_command
from lethe.workspace.workspace import Prepared, normalisation

# Keys of the metadata that files of earlier versions lack, in words
UNRECORDED = {"normalisation": "data.mean and data.std", "sha256": "the content of the given checkpoint"}
DATA = {"original": "all train images", "retrained": "retain alone"}


@dataclass(frozen=True, eq=False)
class Given:
    """A given checkpoint that was read and can be the reference.

    Attributes:
        network: with its weights, its outputs in the order of the data's classes.
        sha256: of the file's bytes, in hex.
        doubt: a line for the log where it may not be what was meant; else "".
    """

    network: Module
    sha256: str
    doubt: str = ""


def weights(
    prepared: Prepared,
    kind: str,
    *,
    replace: bool = False,
    launched: bool = False,
    sample: ReferenceSample | None = None,
    given: Given | None = None,
) -> dict[str, Tensor]:
    """Return a reference's state dict: from its file, else from a given checkpoint, else trained now.

    Args:
        prepared: the images and splits.
        kind: original or retrained.
        replace: make it again where its file is of other settings.
        launched: whether the MLflow run that a launcher made, if one did, is for this training.
        sample: of a given checkpoint it is read alone, and `read_in_full` is left to the caller.
        given: the given checkpoint, where `read_given` has read it already.

    Returns:
        Name of the parameter or buffer -> tensor.

    Raises:
        UserError: its file is of other settings, and `replace` is False; or a given checkpoint does not fit.
        RunFailed: the training diverged, or another process does it.
    """
    planned = plan_reference(prepared.config, kind, prepared.reference_recipe(kind))
    wanted, path = metadata(prepared, planned), prepared.layout.weights(kind)
    if path.exists():
        tensors, found = checkpoint.load(path)
        kept = is_kept(prepared.config, kind, wanted, found, replace=replace)
        if kept and not _unfinished(prepared, planned):
            if missing := unknown(wanted, found):
                what = " and ".join(UNRECORDED[key] for key in missing)
                log(f"{kind}: {path} is used as it is: an earlier version made it and did not record {what}")
            if sample is None and not prepared.layout.epochs(kind).exists():  # a process was stopped before it had read all
                read_in_full(prepared, kind)
            return tensors
        if not kept and not replace:
            log(f"retrained: {path} was for a request that was erased; the next one takes its place")
    if wanted["provenance"] != "trained":
        taken = _take_over(prepared, kind, wanted, given or _read_given(prepared, kind, wanted, sample))
        if sample is None:
            read_in_full(prepared, kind)
        memory.give_back()
        return taken
    log(f"{kind}: training on {DATA[kind]}{_steps(prepared, kind)}")
    with start(prepared, planned, launched=launched) as run:
        for epoch in engine.run(planned.recipe, run.network, run.data, run.options, state=run.state):
            run.record(epoch)
        run.finish()
    return checkpoint.load(path)[0]


def read_in_full(prepared: Prepared, kind: str) -> None:
    """Read all images by a reference: its logits table, unless a DVC stage does, and the epoch table of a given one.

    Args:
        prepared: the images and splits.
        kind: original or retrained.

    Raises:
        UserError: a logit is NaN or infinite.
    """
    layout, path = prepared.layout, prepared.layout.weights(kind)
    table = artifacts.logits(prepared, kind, perturbed=False) if prepared.config.run.evaluate and not dvc_stage.active() else None
    if layout.epochs(kind).exists() or checkpoint.metadata(path).get("provenance", "trained") == "trained":
        return
    if table:
        metrics = read_model.measured(prepared, table)
    else:
        metrics = inference.evaluator(prepared.data, MEASURED)(prepared.loaded(checkpoint.load(path)[0]))
    write_text(layout.epochs(kind), to_csv([epoch_row(Epoch(0, "start", 0, 0.0, metrics=metrics))]))


def check_standing(prepared: Prepared, *kinds: str) -> None:
    """Refuse references of the workspace that are of other settings, before anything is written.

    Args:
        prepared: the images and splits.
        *kinds: original, retrained.

    Raises:
        UserError: the file of one is of other settings.
    """
    for kind in kinds:
        wanted = metadata(prepared, plan_reference(prepared.config, kind, prepared.reference_recipe(kind)))
        path = prepared.layout.weights(kind)
        if path.exists():
            is_kept(prepared.config, kind, wanted, checkpoint.metadata(path))


def is_kept(config: Config, kind: str, wanted: Mapping[str, str], found: Mapping[str, str], *, replace: bool = False) -> bool:
    """Whether the file of a reference is used as it is. Otherwise the reference is made again.

    Args:
        config: the configuration.
        kind: original or retrained.
        wanted: the metadata that the file must have.
        found: those that it has.
        replace: make it again where it is of other settings.

    Returns:
        True: it is used; False: `replace` is True, or it served a request that was erased.

    Raises:
        UserError: it is of other settings, and not to be replaced.
    """
    if not mismatch(wanted, found):
        return True
    if not replace and not (kind == "retrained" and erased.is_of_erased(config, found.get("retain", ""))):
        raise UserError(_not_of(config, kind, wanted, found))
    return False


def needed(config: Config) -> tuple[str, ...]:
    """Return the references that unlearning needs: without an evaluation only the original.

    Args:
        config: the configuration.
    """
    return tuple(STAGE) if config.run.evaluate else ("original",)


def is_there(config: Config, kind: str, recipe: Recipe) -> bool:
    """Whether unlearning will find a reference, rather than take or train it first.

    Reads no image; what only the images tell is passed over.

    Args:
        config: the configuration.
        kind: original or retrained.
        recipe: that it is trained by.

    Returns:
        True: its file is used as it is.

    Raises:
        UserError: its file is of other settings; or it is damaged.
    """
    layout = Layout(config.workspace)
    path, about = layout.weights(kind), layout.about("train")
    if not path.exists():
        return False
    found, hashes = checkpoint.metadata(path), {"normalisation": normalisation(config)}
    if kind == "retrained" and erased.is_of_erased(config, found.get("retain", "")):  # the splits may be that request's still
        return False
    if about.exists():
        hashes["data"] = str(read_json(about)["hash"])
    if layout.splits.exists():
        hashes["retain"] = splits.stored_retain_hash(layout.splits)
    return is_kept(config, kind, reference_metadata(config, plan_reference(config, kind, recipe), hashes), found)


def _not_of(config: Config, kind: str, wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    differs = " and ".join(_difference(key, wanted, found, STAGE[kind]) for key in mismatch(wanted, found))
    return (
        f"{Layout(config.workspace).weights(kind)} does not belong to these settings ({differs}); give those that it was made with, or "
        f"{repair_command(STAGE[kind], config)} makes it again"
    )


def _unfinished(prepared: Prepared, planned: PlannedRun) -> bool:
    """Whether the process that trained a reference was stopped after its weights were written, before its MLflow run was complete."""
    if not any(prepared.layout.resume.glob("*/state.safetensors")):
        return False
    if not is_left(prepared, planned, checkpoint.weights_hash(prepared.untrained(planned.seed).state_dict())):
        return False
    with contextlib.suppress(RunFailed), held(prepared.layout.lock(planned.run), str(planned)):
        return True
    return False  # that process is about to complete it


def _steps(prepared: Prepared, kind: str) -> str:
    """Describe how pretrain.min_steps changes the recipe; "" where it does not."""
    recipe = prepared.reference_recipe(kind)
    if recipe == prepared.config.reference_recipe(kind):
        return ""
    phases = [phase for phase in recipe if isinstance(phase, Phase)]
    epochs, batch = " + ".join(str(phase.epochs) for phase in phases), phases[0].batch_size
    rates = ", ".join(f"{max(phase.lr(percent / 100) for percent in range(100)):g}" for phase in phases)
    return (
        f" in {epochs} epochs, batch size {batch}, learning rates {rates}: pretrain.* as set would take fewer than pretrain.min_steps "
        f"{prepared.config.pretrain.min_steps:,} optimizer steps on {prepared.images.train:,} images"
    )


def judge(prepared: Prepared, sampled: bool = False) -> None:
    """Log, before anything is compared with the retrained model, why it is no reference; nothing where it is one.

    A DVC stage writes no other stage's outputs, here logits tables, so there the epoch tables decide, by retain alone.

    Args:
        prepared: the images and splits.
        sampled: whether a sample of the images left no doubt of it before.
    """
    if line := scores.unfit_by_epochs(prepared) if dvc_stage.active() else scores.unfit_reference(prepared):
        log(f"{line} (by all images; a sample, read before the first epoch, did not show it)" if sampled else line)


def check_models(config: Config, *kinds: str, replace: bool = False) -> None:
    """Try the network, and read the checkpoints that are given and not in the workspace yet, before any image is read or file written.

    Args:
        config: the configuration.
        *kinds: original, retrained; none: others than the workspace's are trained, for which no checkpoint is given.
        replace: read them where the workspace has one, too.

    Raises:
        UserError: the network does not take the images or classes; a file is missing, holds no weights, or weights of another network.
    """
    layout, data = Layout(config.workspace), config.data
    counted, classes = sources.find(data.source).counts, 2  # without `counts` the images must be read to know the classes
    if counted:
        counts = sources.class_counts(data.source, **source_keys(config), cache=layout.data)
        classes = len(counts)
    network = architectures.build(config.model.architecture, classes, 0, drawn=False)
    architectures.check(network, config.model.architecture, data.image_size, classes if counted else None)
    if not kinds and (init := config.pretrain.init):
        _check_init(config, network if counted else None, init)
    for kind in kinds:
        stage = STAGE[kind]
        spec = getattr(config, stage).checkpoint
        if layout.weights(kind).exists() and not replace:
            continue
        if spec is None and (init := config.pretrain.init):
            _check_init(config, network if counted else None, init)
        if spec is None:
            continue
        with _naming(f"{stage}.checkpoint"):
            tensors, _ = foreign.read(spec, config.path(Path()), layout.downloads, quiet=True)
            if counted:
                _fit(config, network, tensors, spec, quiet=True)


def _check_init(config: Config, network: Module | None, init: str) -> None:
    """Read pretrain.init, and try it on a network where one with the right number of classes is known."""
    where = config.model.architecture, config.path(Path()), Layout(config.workspace).downloads
    if network is None:
        initial.identity(init, *where)
    else:
        initial.load(network, init, *where, normalisation=(config.data.mean, config.data.std), quiet=True)


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Put a key before the message of an error."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{key}: {error}") from None


def _fit(config: Config, network: Module, tensors: dict[str, Tensor], spec: str, *, quiet: bool = False) -> None:
    normalisation = fitting.fit(network, tensors, spec, quiet=quiet)
    if normalisation:
        normalisation.check(config.data.mean, config.data.std, spec, quiet=quiet)


def read_given(
    drawn: Prepared, kinds: Iterable[str], into: dict[str, Given], *, replace: bool = False, sample: ReferenceSample | None = None
) -> None:
    """Read the checkpoints that are given and will be taken over, and try them on images, before anything is written: for `prepare`.

    Args:
        drawn: the images and splits, which no file may hold yet.
        kinds: original, retrained.
        into: gets each of them, by kind, for `weights`.
        replace: as for `weights`.
        sample: as for `weights`.

    Raises:
        UserError: a checkpoint does not fit, its outputs are those of other classes, or the workspace has a reference of other settings.
    """
    for kind in kinds:
        if getattr(drawn.config, STAGE[kind]).checkpoint is None:
            continue
        wanted = metadata(drawn, plan_reference(drawn.config, kind, drawn.reference_recipe(kind)))
        path = drawn.layout.weights(kind)
        if not (path.exists() and is_kept(drawn.config, kind, wanted, checkpoint.metadata(path), replace=replace)):
            into[kind] = _read_given(drawn, kind, wanted, sample)


def _read_given(prepared: Prepared, kind: str, wanted: Mapping[str, str], sample: ReferenceSample | None) -> Given:
    """Read the given checkpoint of a reference, in the order of the data's classes, and check that it can be what it is said to be."""
    config, layout, stage = prepared.config, prepared.layout, STAGE[kind]
    network, spec = prepared.bare_network(), getattr(config, stage).checkpoint
    with _naming(f"{stage}.checkpoint"):
        tensors, sha256 = foreign.read(spec, config.path(Path()), layout.downloads)
        _fit(config, network, tensors, spec)
    data, classes = prepared.data, prepared.images.classes
    if wanted["classes"] and (own := config.pretrain.classes):
        reorder(network, positions(own, classes), data.normalised(data.splits["retain"][:8]))
    known = sample.read(kind, network) if sample else None
    clear = known is not None and given_original.is_clear(known.own, known.images)
    return Given(network, sha256, given_original.check(network, data, classes, spec) if kind == "original" and not clear else "")


def _take_over(prepared: Prepared, kind: str, wanted: Mapping[str, str], given: Given) -> dict[str, Tensor]:
    """Copy a given checkpoint into the workspace."""
    spec = getattr(prepared.config, STAGE[kind]).checkpoint
    log(f"{kind}: {spec}, SHA-256 {given.sha256}, provenance unknown")
    if given.doubt:
        log(given.doubt)
    about = {**wanted, "checkpoint": spec.rsplit("/", 1)[-1], "sha256": given.sha256}
    checkpoint.save_model(given.network.state_dict(), prepared.layout.weights(kind), about)
    remember(prepared, *KEYS[kind])
    return given.network.state_dict()


def _difference(key: str, wanted: Mapping[str, str], found: Mapping[str, str], stage: str) -> str:
    """Describe one key of the metadata that is not what is wanted."""
    was, now = found.get(key, ""), wanted[key]
    if key == "normalisation":
        return f"it was made with {was}, not with {now}"
    if key == "classes":
        return f"it was taken with pretrain.classes {was or 'null'}, not {now or 'null'}"
    if key == "sha256":
        return f"it was made from another file than {stage}.checkpoint names now: SHA-256 {short(was)}, not {short(now)}"
    if key == "init":
        return f"it was trained from {was or 'random weights'}, not from {now or 'random weights'} (pretrain.init)"
    numbers = _differing_numbers(was, now) if key == "recipe" else ""
    return f"other {key}{numbers and f': {numbers}'}"


def _differing_numbers(found: str, wanted: str) -> str:
    """Return the numbers in which two recipes differ, at most four; "" where they are built otherwise."""
    numbers = re.compile(r"(\w+)=(-?[\d.e-]+|True|False)")
    if numbers.sub("", found) != numbers.sub("", wanted):
        return ""
    pairs = zip(numbers.findall(found), numbers.findall(wanted), strict=False)
    differ = dict.fromkeys(f"{name} {was}, here {now}" for (name, was), (other, now) in pairs if name == other and was != now)
    return "; ".join([*differ][:4])
