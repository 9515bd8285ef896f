"""What DVC can't see by itself, in small files that it can: which images there are, what is to be forgotten, every recipe, the arithmetic.

Runs at each `dvc repro`, so it imports no torch and takes a second. No stage depends on a source file: a recipe's text knows no comments,
and the arithmetic is a declared number (numerics.py)."""

from dataclasses import replace
from pathlib import Path

from lethe._util.errors import UserError
from lethe._util.files import digest, write_json, write_text
from lethe._util.integrity import digest_file
from lethe.config.loader import STAGE, Config
from lethe.config.schema import Pretrain, flatten
from lethe.data import sources
from lethe.recipes.recipe import Recipe
from lethe.workspace import numerics
from lethe.workspace.layout import Layout
from lethe.workspace.plan import plan
from lethe.workspace.request import metadata_file, source_keys

SETTINGS = ("data.mean", "data.std", "model.architecture", "run.seed", "run.precision")  # whatever is trained depends on them
NEWER = (
    "where",
    "column",
    "copies",
)  # keys of a request that earlier versions lacked: only where they are set, so that their hashes still hold
MEASURING = ("run.evaluate_every", "run.evaluate_retain")  # and a method's epoch table on these


def fingerprint(config: Config) -> None:
    """data/fingerprint.json, and recipes/<name>.txt of every method, the two references, the bank and the engine; under the workspace."""
    data = config.data
    images = sources.listing(data.source, **source_keys(config))
    found = {"images": images, "seed": data.seed, "request": request(config)}
    if numerics.SPLITS > 1:
        found["splits"] = numerics.SPLITS
    recipes = {name: recipe(config, name) for name in (*STAGE, *config.methods)}
    recipes["bank"] = "".join(f"{getattr(config, stage).seeds} {kind}\n{recipe(config, kind)}" for kind, stage in STAGE.items())
    recipes["engine.py"] = numerics.engine()
    recipes |= {name: f"{number}\n" for name, number in numerics.raised().items()}
    layout = Layout(config.workspace)
    write_json(layout.fingerprint, found)
    for name, text in recipes.items():
        write_text(layout.recipe(name), text)


def request(config: Config) -> str:
    """A hash of what is to be forgotten: of the file's content, or of the key's value."""
    forget = config.data.forget
    newer = [f"{name} {getattr(forget, name)}" for name in NEWER if getattr(forget, name) != type(forget).model_fields[name].default]
    if forget.where is not None:
        table = metadata_file(config)
        return digest([*newer, _content(table, "data.metadata") if table else ""])
    if forget.ids is not None:
        content = _content(config.path(forget.ids), "data.forget.ids")
        return digest([content, *newer]) if newer else content
    return digest([forget.model_dump_json(exclude=set(NEWER)), *newer])


def _content(path: Path, key: str) -> str:
    try:
        return digest_file(path)
    except OSError as error:
        raise UserError(f"{key} is {path} ({error.strerror}); it takes a CSV or text file of ids") from None


def recipe(config: Config, name: str) -> str:
    """Return the text that the DVC stages of a method or reference depend on.

    Args:
        config: the configuration.
        name: a method, `original` or `retrained`.

    Returns:
        A line for each setting and each phase; for a reference that is not trained here, the SHA-256 of its file in place of the
        phases, or the key's value where that is not a file.
    """
    values = {section: getattr(config, section).model_dump(mode="json") for section in ("data", "model", "run")}
    settings = flatten(values, "")
    lines = "".join(f"{key} {settings[key]}\n" for key in (SETTINGS if name in STAGE else (*SETTINGS, *MEASURING)))
    if name not in STAGE:
        runs = plan(replace(config, method=name))
        if runs[0].run.seed is not None:
            lines += f"run.seeds {len(runs)}\n"
        if config.run.originals > 1:
            lines += f"run.originals {config.run.originals}\n"
        return lines + "".join(f"{method}\n{_lines(own)}" for method, own in {each.run.method: each.recipe for each in runs}.items())
    if config.pretrain.min_steps != Pretrain.model_fields["min_steps"].default:  # what earlier versions trained stays valid by default
        lines += f"pretrain.min_steps {config.pretrain.min_steps}\n"
    spec: str | None = getattr(config, STAGE[name]).checkpoint
    if spec is None:
        init = config.pretrain.init
        lines += f"pretrain.init {_file_or_name(config, init)}\n" if init else ""
        return lines + _lines(config.reference_recipe(name))
    if config.pretrain.classes:
        lines += f"pretrain.classes {','.join(config.pretrain.classes)}\n"
    return f"{lines}checkpoint {_file_or_name(config, spec)}\n"


def _file_or_name(config: Config, spec: str) -> str:
    """The SHA-256 of a file, else its name: a URL has its hash in it, and the stage that needs a missing file reports it."""
    path = config.path(Path(spec))
    return digest_file(path) if path.is_file() else spec


def _lines(steps: Recipe) -> str:
    return "".join(f"{step!r}\n" for step in steps)
