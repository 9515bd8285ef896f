"""The stages: their verbs, what their command lines take besides `--key value`, and which function does the work.

That function is named, not imported: --help and bad input answer before torch is loaded.
"""

import importlib
import os
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from lethe._util.checkout import here
from lethe._util.errors import UserError
from lethe._util.files import user_path
from lethe._util.names import is_whole_number
from lethe.cli.words import name_functions, split_flags, split_list, split_methods, split_option, split_switches
from lethe.config.loader import Config, load
from lethe.tracking import outbox
from lethe.workspace import settings

NORMALISES = frozenset(  # functions to which the given original may say data.mean and data.std
    f"lethe.{name}"
    for name in (
        *("pipeline.stages:pretrain", "pipeline.stages:retrain", "pipeline.stages:demo", "pipeline.bank_training:train_bank"),
        *("pipeline.unlearn:unlearn", "pipeline.several_methods:unlearn_each", "pipeline.evaluate:evaluate", "search.study:search"),
        *("reporting.card:write_cards", "reporting.report:report", "erasure.erase:erase", "erasure.erase:plan"),
    )
)


@dataclass(frozen=True)
class Command:
    """A parsed command line."""

    function: str  # module:name; called with the configuration, unless `words` is None
    words: list[str] | None  # `--key value` pairs
    overlay: str | None = None  # section of params.yaml laid over the others
    arguments: Mapping[str, Any] = field(default_factory=dict)
    stopped: str = ""  # what is said of it when it is interrupted; "": its function says that itself, or there is nothing to resume

    def work(self, verb: str) -> Callable[[], object]:
        """Return what to call: the function of the stage `verb` with its configuration. An int that it returns is the exit code."""
        if self.words is None:
            return partial(self._resolve(), **self.arguments)
        remembered = None if verb == "fingerprint" else settings.layer  # it describes params.yaml
        config = load(self.words, overlay=self.overlay, settings=remembered)  # first: bad input answers at once
        settings.check(config, verb)
        _use_experiment(config)
        given = any(f"data.{key}" in layer for key in ("mean", "std") for layer in (config.given, config.settings))
        if self.function in NORMALISES and not given and (config.pretrain.checkpoint or ":" in config.model.architecture):
            config = importlib.import_module("lethe.pipeline.own_normalisation").adopted(config)
        return partial(self._resolve(), config, **self.arguments)

    def _resolve(self) -> Callable[..., object]:
        module, _, name = self.function.partition(":")
        function: Callable[..., object] = getattr(importlib.import_module(module), name)
        return function


def _use_experiment(config: Config) -> None:
    """Choose the experiment of the command's MLflow runs.

    Raises:
        UserError: `mlflow run` has made the run already, in another experiment.
    """
    name = config.run.experiment
    if all(os.environ.get(f"MLFLOW_{key}") for key in ("RUN_ID", "EXPERIMENT_ID")):
        if "run.experiment" in config.given and name:
            made = f"`mlflow run --experiment-name {shlex.quote(name)}`"
            raise UserError(f"run.experiment is {name}, and `mlflow run` made the run in its own experiment already; it takes {made}")
        name = None
    outbox.use_experiment(name, config.workspace_name)


@dataclass(frozen=True)
class Stage:
    """A verb of the command line."""

    summary: str
    parse: Callable[[list[str]], Command]
    usage: tuple[str, ...] = ()  # lines of --help after the keys; {program} is how the stage was called
    takes_keys: bool = True


def _plain(function: str, words: list[str]) -> Command:
    return Command(function, words)


def _unlearn(words: list[str]) -> Command:
    words, switches = split_switches(words, "--explain", "--time", "--list")
    rest, names = split_methods(words, references=False)
    rest, names = name_functions(rest, names)
    if "--list" in switches:
        return Command("lethe.pipeline.method_list:print_methods", rest, arguments={"names": names})
    if "--explain" in switches:
        return Command("lethe.pipeline.dry_run:print_explanation", rest, arguments={"measure": "--time" in switches, "names": names})
    if names:
        return Command("lethe.pipeline.several_methods:unlearn_each", rest, arguments={"names": names})
    return Command("lethe.pipeline.unlearn:unlearn", rest)


def _evaluate(words: list[str]) -> Command:
    words, names = name_functions(*split_methods(words))
    return Command("lethe.pipeline.evaluate:evaluate", words, arguments={"names": names})


def _search(words: list[str]) -> Command:
    if words[:1] != ["adopt"]:
        return Command("lethe.search.study:search", words, stopped="search: stopped; the same command resumes")
    end = next((at for at, word in enumerate(words) if word.startswith("--")), len(words))
    trial = words[1:end]
    if not 1 <= len(trial) <= 2 or not is_whole_number(trial[0]):
        raise UserError(f"adopt {' '.join(trial)}: it takes the number of a trial and, if you like, a name: adopt 17 gentle")
    return Command("lethe.search.adopt:adopt", words[end:], arguments={"number": int(trial[0]), "name": "".join(trial[1:])})


def _leaderboard(words: list[str]) -> Command:
    words, methods = split_option(words, "--method")
    words, shares = split_option(words, "--share")
    words, settings = split_option(words, "--settings")
    words, names = name_functions(words, [name for text in methods for name in text.split(",")])
    named = {"words": words, "names": names, "shares": [one for text in shares for one in text.split(",")]}
    if settings:
        return Command("lethe.search.leaderboard:leaderboard", words, arguments={**named, "settings": settings[-1]})
    return Command("lethe.pipeline.leaderboard:leaderboard", words, arguments=named)


def _report(words: list[str]) -> Command:
    return _card(words[1:]) if words[:1] == ["card"] else Command("lethe.reporting.report:report", words)


def _card(words: list[str]) -> Command:
    words, files = split_option(words, "--verify")
    if files:
        if len(files) > 1 or not files[0]:
            raise UserError(f"verify is {' '.join(files) or repr('')}; it takes the JSON file of one card")
        if words:
            return Command("lethe.reporting.card_proof:verify", words, arguments={"file": Path(files[0])})
        return Command("lethe.reporting.card_seal:verify", None, arguments={"file": Path(files[0])})
    words, ids = split_option(words, "--list")
    if not ids:
        words, names = split_methods(words, references=False)
        return Command("lethe.reporting.card:write_cards", words, arguments={"names": names})
    if len(ids) > 1 or "" in ids:
        raise UserError(f"list is {' '.join(ids) or repr('')}; it takes the id of one image, e.g. --list train/5940, or a file of ids")
    return Command("lethe.reporting.card:list_cards", words, arguments={"named": ids[0]})


def _erase(words: list[str]) -> Command:
    words, switches = split_flags(words, "--yes", "--check", "--source")
    words, keep = split_option(words, "--keep")
    if "" in keep:
        raise UserError("keep is ''; it takes a remote of DVC, by its name or address, or the folder of DVC's cache")
    if {"--yes", "--check"} <= switches:
        raise UserError("--yes and --check are both given; erase takes one of them, or neither to print its plan")
    if "--check" in switches:
        if "--source" in switches:
            raise UserError("--source is given with --check, which searches the source anyway and erases nothing")
        return Command("lethe.erasure.erase:check", words, arguments={"keep": keep})
    arguments = {"source": "--source" in switches, "keep": keep}
    if "--yes" in switches:
        return Command("lethe.erasure.erase:erase", words, arguments=arguments, stopped="erase: stopped; the same command finishes it")
    return Command("lethe.erasure.erase:plan", words, arguments=arguments)


def _ledger(words: list[str]) -> Command:
    return Command("lethe.reporting.ledger_lines:verify", words[1:] if words[:1] == ["verify"] else words)  # there is no other verb yet


def _verify(words: list[str]) -> Command:
    words, switches = split_flags(words, "--recompute")
    words, files = split_list(words, "--accept")
    if files and switches:
        raise UserError("--recompute is given with --accept, which takes files as they are; verify takes one of them")
    if files:
        return Command("lethe.pipeline.accept:accept", words, arguments={"files": files})
    return Command("lethe.pipeline.verify:verify", words, arguments={"recompute": bool(switches)})


def _demo(words: list[str]) -> Command:
    words, switches = split_switches(words, "--full")
    if switches:
        return Command("lethe.pipeline.stages:full_demo", words, overlay="full")
    return Command("lethe.pipeline.stages:demo", words, overlay="demo")


def _send(words: list[str]) -> Command:
    words, named = split_option(words, "--run.workspace")
    if "" in named:
        raise UserError("run.workspace is ''; it takes a folder")
    if option := next((word for word in words if word.startswith("-")), None):
        raise UserError(f"{option} is unknown; send takes folders: send [workspace ...]")
    return Command(
        "lethe.cli.mlflow_commands:send", None, arguments={"folders": [*words, *(str(here() / user_path(one)) for one in named)]}
    )


def _ui(words: list[str]) -> Command:
    words, ports = split_option(words, "--port")
    if words or len(ports) > 1:
        raise UserError(f"{' '.join(words or ports)} is not understood; ui takes --port <number>")
    return Command("lethe.cli.mlflow_commands:ui", None, arguments={"port": (ports or ["5000"])[0]})


CARD_USAGE = (
    "usage: {program} [--method <method>] [--key value ...]",
    "  the unlearning card of the method's result: one HTML page, and the same as Markdown and JSON, in cards/ of the workspace",
    "usage: {program} --verify <card.json>",
    "  whether a card is as it was written, without its workspace; exit code 1 if it is not",
    "usage: {program} --verify <card.json> --run.workspace <folder>",
    "  and whether every number on it is what the logits tables show, computed again, and its result the one that the ledger has",
    "usage: {program} --list <id or file of ids> [--key value ...]",
    "  every card in the workspace whose request names the image, or one of them",
)
STAGES = {
    "fingerprint": Stage(
        "write down what DVC does not see: the listing of the images, the deletion request, every method's recipe",
        partial(_plain, "lethe.workspace.fingerprint:fingerprint"),
    ),
    "prepare": Stage("read images, labels and ids, and draw the four splits", partial(_plain, "lethe.pipeline.stages:prepare")),
    "pretrain": Stage(
        "train the original on retain and forget, or take pretrain.checkpoint",
        partial(_plain, "lethe.pipeline.stages:pretrain"),
    ),
    "retrain": Stage("train the reference on retain alone, or take retrain.checkpoint", partial(_plain, "lethe.pipeline.stages:retrain")),
    "bank": Stage(
        "train the reference bank: pretrain.seeds originals and retrain.seeds retrained models, kept as logits tables",
        partial(_plain, "lethe.pipeline.bank_training:train_bank"),
    ),
    "unlearn": Stage(
        "unlearn by --method (several: model_1,hybrid_4, or all), after training the reference models that are missing",
        _unlearn,
        (
            "",
            "  --explain  print what would happen; reads no data, writes nothing",
            "  --time     with --explain: also time three optimizer steps on random tensors",
            "  --list     print every method, or those of --method: what it does, source, cost as a share of retraining, arguments",
        ),
    ),
    "evaluate": Stage(
        "compute scores from logits tables; --method also takes original, retrained, several (model_1,model_3), or all",
        _evaluate,
    ),
    "search": Stage(
        "search for better arguments of --search.method; adopt: write a trial into params.yaml",
        _search,
        (
            "  --search.spaces.<method>.<argument>.<low, high, step, log or choices>, to search elsewhere than params.yaml says",
            "  --search.spaces.<method>.<argument> null, to leave it as it is",
            "",
            "usage: {program} adopt <trial> [<name>] [--key value ...]",
            "  write a finished trial of the newest such search into params.yaml, as a variant of its method",
        ),
    ),
    "leaderboard": Stage(
        "run methods at stated shares of the cost of retraining, and put them in one table",
        _leaderboard,
        (
            "",
            "  --method  a method, several (lethe,ft), or all [all]",
            "  --share   shares of the cost of retraining, as 0.1,0.2 [0.03,0.05,0.1,0.2,0.3]",
            "  --settings  try so many settings of each method at a share of 0.1, without a retrained model; rows have the best [0]",
            "  Finished rows are kept. Writes leaderboard.csv, summary.csv and figures to results/leaderboard in the workspace.",
        ),
    ),
    "report": Stage(
        "write the report: tables and figures from the score files and epoch tables of a workspace",
        _report,
        ("", *(line.replace("{program}", "{program} card") for line in CARD_USAGE)),
    ),
    "card": Stage(
        "write the unlearning card of --method; several as model_1,hybrid_4, or all that have a result", _card, ("", *CARD_USAGE)
    ),
    "erase": Stage(
        "erase the images of an unlearned request wherever they are kept; without --yes, print the plan and change nothing",
        _erase,
        (
            "",
            "  --yes     erase; the result of --method becomes the original. A killed command is finished by the same command",
            "  --source  also delete the images' files under data.root",
            "  --check   search everything again for what was erased so far",
            "  --keep    leave a remote or the cache of DVC alone, by its name or address, as for another project; may be repeated",
            "",
            "Exit codes: 0 nothing is left (or the plan was printed), 1 something is, and is named, 2 bad input.",
        ),
    ),
    "ledger": Stage(
        "verify: check that no line of the workspace's ledger was altered, removed or moved",
        _ledger,
        ("", "usage: {program} verify [--run.workspace <folder>]", "", "Exit codes: 0 the chain is whole, 1 it is not, 2 there is none."),
    ),
    "verify": Stage(
        "read every file of a workspace: which are damaged, how to make them again, and which belong to nothing",
        _verify,
        (
            "",
            "  --recompute  also compute every score again from its logits tables, and compare",
            "  --accept     take the named files as they are: CSV, JSON and text without a hash of its own that was changed on purpose",
            "               (--accept epochs/ft.csv data/copies.csv; under run.workspace, or under the current folder)",
            "",
            "Exit codes: 0 no file is damaged, 1 one is, and is named, 2 there is no such workspace.",
        ),
    ),
    "demo": Stage(
        "run the main job on the bundled digits: original, retrained and hybrid_4 side by side",
        _demo,
        ("", "  --full  with a bank of 64, all ten methods by 8 or 64 seeds, every measure and the report (half an hour)"),
    ),
    "send": Stage(
        "send MLflow the records that it did not take because it did not answer",
        _send,
        (
            "usage: {program} [workspace ...] [--run.workspace <folder>]",
            "",
            "  workspace  folders whose .lethe/ holds unsent records (default: this project's, and those in it)",
            "  --run.workspace  one more; a relative path is below this project's folder, as in other commands",
            "",
            "Exit codes: 0 nothing is left, 1 something is (the reason is printed), 2 no such folder.",
        ),
        takes_keys=False,
    ),
    "ui": Stage(
        "open MLflow's UI on this project's runs",
        _ui,
        ("usage: {program} [--port <number>]", "", "  --port  [5000]"),
        takes_keys=False,
    ),
}
