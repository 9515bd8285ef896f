"""One call on a machine with a GPU that has torch, torchvision, numpy and safetensors, and none of what the stages need.

    python bench/gpu.py plan plan.json --seeds 3 --shares 0.1 -- --data.source image_folder --data.root cifar10-jpeg
    python bench/gpu.py run plan.json --root cifar10-jpeg --write gpu.json [--minutes 10] [--workers 8] [--quick]

`plan` runs where Lethe is installed: it writes every recipe as text, with what the images are and how they are divided. `run` takes the
checkout, that file and the folder of images. It trains the original and the retrained models, times the steps next to other ways to write
them, trains small models at once and a bank by the fast protocol, and runs every method of the plan by every seed, several processes at a
time on a GPU. The results are written after each run, so what the time does not suffice for is missing, and named. The attacks among the
measures need scipy and scikit-learn as well; without them a result has its accuracies and losses. With --quick everything is cut down for a
try on a CPU."""

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
sys.path.insert(0, str(Path(__file__).parent))

FORMAT = 1
QUICK_EPOCHS = 1
LONGEST = 150  # epochs of a method at a share; the share counts weights that train, the clock does not


@dataclass(frozen=True)
class Unit:
    """A model that is trained and measured.

    Attributes:
        name: original, retrained, a method, or a method at a share of the cost of retraining.
        seed: of its weights, or of the run.
        recipe: as text.
        start: the model that it starts from; "": random weights.
        architecture: of the network.
        references: the retrained models that it is compared with.
    """

    name: str
    seed: int
    recipe: str
    start: str
    architecture: str
    references: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Its name in files and results."""
        return f"{self.name}.seed{self.seed}"


# --- the plan, where everything is installed ----------------------------------------------------------------------------


def plan(words: Sequence[str], shares: Sequence[str], seeds: int, names: Sequence[str] = (), bank: int = 0) -> dict[str, Any]:
    """Everything that `run` needs, of a configuration.

    Args:
        words: keys of the command line.
        shares: of the cost of retraining, at which the leaderboard's methods run; empty: none of them.
        seeds: number of seeds of each method and of the retrained model.
        names: the leaderboard's methods; empty: all that are a single run.
        bank: number of retrained models by the fast protocol.
    """
    from lethe.config.loader import load
    from lethe.pipeline import leaderboard
    from lethe.recipes.fast_protocol import fast
    from lethe.recipes.paper_methods import PAPER_METHODS
    from lethe.recipes.recipe import epochs

    config, left_out = load(words), dict[str, str]()
    methods = {name: repr(replace(config, method=name).recipe()) for name in PAPER_METHODS}
    for share in leaderboard.accepted_shares(shares) if shares else ():
        for name in leaderboard.accepted_methods(config, names):
            entry = leaderboard.Entry(name, share)
            at = leaderboard.at_share(words, entry, {})
            if at is None:
                left_out[entry.name] = "one epoch costs more"
            elif (number := epochs(at.recipe())) > LONGEST:
                left_out[entry.name] = f"few weights train, so it would have {number:,} epochs"
            else:
                methods[entry.name] = repr(at.recipe())
    return {
        "format": FORMAT,
        "architecture": config.model.architecture,
        "image_size": config.data.image_size,
        "limit": config.data.limit,
        "mean": config.data.mean,
        "std": config.data.std,
        "split_seed": config.data.seed,
        "fraction": config.data.forget.fraction,
        "count": config.data.forget.count,
        "seeds": seeds,
        "original": repr(config.reference_recipe("original")),
        "retrained": repr(config.reference_recipe("retrained")),
        "methods": methods,
        "left_out": left_out,
        "bank": {"models": bank, "original": repr(fast("train")), "retrained": repr(fast("retain"))},
    }


# --- one model, in whatever process -------------------------------------------------------------------------------------


@cache
def _plan(folder: Path) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    return made


@cache
def _compute(folder: Path) -> Any:
    from lethe.models import device

    return device.resolve(SimpleNamespace(device="auto", precision="auto", channels_last=True, threads=_plan(folder)["threads"]))


@cache
def _images(folder: Path) -> Any:
    from lethe.data.images import load_images

    return load_images(folder / "images.safetensors")[0]


@cache
def _data(folder: Path) -> Any:
    """Images and splits on the device; loaded once a process."""
    import torch

    from lethe.data import splits
    from lethe.data.device_data import Data
    from lethe.data.pixel_store import as_tensor
    from lethe.data.request import DeletionRequest

    told, place, images = _plan(folder), _compute(folder).device, _images(folder)
    drawn = splits.draw(images, DeletionRequest(fraction=told["fraction"], count=told["count"]), told["split_seed"])
    index = {name: torch.from_numpy(rows).to(place) for name, rows in drawn.items()}
    index["train"] = torch.arange(images.train, device=place)
    mean, std = (torch.tensor(told[key], device=place).view(1, -1, 1, 1) for key in ("mean", "std"))
    return Data(as_tensor(images.pixels).to(place), torch.from_numpy(images.labels).to(place), index, mean, std, True)


@cache
def _table(folder: Path, key: str) -> Any:
    from lethe.evaluation import logits_table

    return logits_table.read(folder / f"{key}.logits.safetensors", key)


def train(unit: Unit, folder: Path, deadline: float) -> dict[str, Any]:
    """Train and measure one model; its weights and its logits table are written into the folder.

    Args:
        unit: the model.
        folder: with the plan and the images.
        deadline: second since the epoch after which no further epoch of training begins.

    Returns:
        Its accuracies, seconds and measures, or why there are none.
    """
    if time.time() > deadline:
        return {"left_out": "the time was over"}
    from lethe._util.errors import Diverged
    from lethe.engine import engine
    from lethe.engine.frozen_prefix import Prefix
    from lethe.engine.options import RunOptions
    from lethe.evaluation import inference
    from lethe.models import architectures, checkpoint
    from lethe.models.redraw import unrelated_seed

    data, compute, told = _data(folder), _compute(folder), _plan(folder)

    def network(seed: int) -> Any:
        return compute.place(architectures.build(unit.architecture, len(_images(folder).classes), seed))

    model = network(unit.seed)
    if unit.start:
        model.load_state_dict(checkpoint.load(folder / f"{unit.start}.safetensors")[0])
    autocast = compute.autocast
    measured = inference.evaluator(data, ("validation",), autocast)
    options = RunOptions(
        evaluate=measured,
        evaluate_every=10**6,  # at the ends of phases
        seed=unit.seed,
        autocast=autocast,
        step_inputs=Prefix(1024, autocast),
        random_init=partial(network, unit.seed),
        fresh_init=partial(network, unrelated_seed(unit.seed)),
    )
    steps, seconds = 0, 0.0
    try:
        for epoch in engine.run(_recipe(unit.recipe, told["quick"]), model, data, options):
            steps, seconds = steps + epoch.steps, seconds + epoch.seconds
            if time.time() > deadline:
                return {"left_out": f"the time was over after epoch {epoch.global_epoch}"}
    except Diverged as error:
        return {"left_out": str(error)}
    checkpoint.save(model.state_dict(), folder / f"{unit.key}.safetensors", {})
    return {"steps": steps, "seconds": round(seconds, 3)} | _measured(unit, folder, model)


def _recipe(text: str, quick: bool) -> Any:
    """The recipe that a text describes; if `quick` of one epoch a phase, with small batches."""
    from lethe.recipes.recipe import Phase, parse

    recipe = parse(text)
    if not quick:
        return recipe
    small = {"epochs": QUICK_EPOCHS, "batch_size": 16, "part": 1.0}
    return tuple(replace(step, **small) if isinstance(step, Phase) and step.epochs else step for step in recipe)


def _measured(unit: Unit, folder: Path, model: Any) -> dict[str, Any]:
    """Accuracies, and what further measures there are without the libraries that are missing."""
    import torch

    from lethe.data.splits import SPLITS
    from lethe.evaluation import inference, logits_table, representations, score
    from lethe.evaluation.measures import TAUS

    data, images = _data(folder), _images(folder)
    split = torch.full((len(images.ids),), -1)
    for number, name in enumerate(SPLITS):
        split[data.splits[name].cpu()] = number
    logits, features = inference.logits_and_features(model, data, torch.arange(len(images.ids), device=data.device))
    forget = data.splits["forget"].cpu().numpy()
    columns: dict[str, Any] = inference.perturbed_columns(model, data, forget, images.ids, TAUS, inference.PERTURBED)
    missing = ""
    if features is not None:
        try:
            retain = data.splits["retain"].cpu().numpy()
            columns["probe"] = representations.probe(features.numpy(), images.labels, retain, len(images.classes))
        except ModuleNotFoundError as error:
            missing = str(error.name)
    table = logits_table.LogitsTable(unit.key, images.ids, images.labels, split.numpy().astype("uint8"), logits.cpu().numpy(), columns)
    logits_table.write(table, folder / f"{unit.key}.logits.safetensors")
    accuracy, loss = score.accuracy_and_loss(table)
    found: dict[str, Any] = {"accuracy": accuracy, "loss": loss}
    if unit.references and not missing:
        try:
            start = _table(folder, unit.start) if unit.start else None
            full = score.score_model(table, [_table(folder, key) for key in unit.references], start, at_random=True)
            found = full.to_json()
        except ModuleNotFoundError as error:
            missing = str(error.name)
    return found | ({"measures_need": missing} if missing else {})


# --- the parts ----------------------------------------------------------------------------------------------------------


class Record:
    """What was found so far, in a file that is replaced after each result."""

    def __init__(self, path: Path, about: Mapping[str, Any], minutes: float) -> None:
        self.path, self.began = path, time.time()
        self.deadline = self.began + 60 * minutes
        self.found: dict[str, Any] = {"format": FORMAT, **about, "parts": {}, "left_out": []}

    @property
    def over(self) -> bool:
        """Whether the time is."""
        return time.time() > self.deadline

    def add(self, part: str, key: str, value: Mapping[str, Any]) -> None:
        """Keep a result, and write the file."""
        from lethe._util.files import write_json

        if "left_out" in value:
            self.found["left_out"].append({"part": part, "run": key, "why": value["left_out"]})
        else:
            self.found["parts"].setdefault(part, {})[key] = dict(value)
        self.found["seconds"] = round(time.time() - self.began, 1)
        write_json(self.path, self.found)
        print(f"{self.found['seconds']:7.1f} s  {part}: {key}  {_line(value)}", file=sys.stderr, flush=True)


def _line(value: Mapping[str, Any]) -> str:
    if "accuracy" in value:
        return " ".join(f"{split} {percent:.2f}" for split, percent in value["accuracy"].items())
    return str(value.get("left_out", ""))


def _of(result: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A result, or the error that took its place, such as a GPU's memory that was full: the other runs go on."""
    try:
        return result()
    except Exception as error:
        return {"left_out": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def train_all(part: str, units: Sequence[Unit], folder: Path, record: Record, pool: ProcessPoolExecutor | None) -> None:
    """Train models: in this process, or several at a time; the earlier of the list first."""
    if pool is None:
        for unit in units:
            record.add(part, unit.key, _of(partial(train, unit, folder, record.deadline)))
        return
    running: dict[Future[dict[str, Any]], Unit] = {pool.submit(train, unit, folder, record.deadline): unit for unit in units}
    while running:
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for one in done:
            record.add(part, running.pop(one).key, _of(one.result))


def references(told: Mapping[str, Any]) -> list[Unit]:
    """The original, and retrained models by several seeds."""
    network = told["architecture"]
    retrained = [Unit("retrained", seed, told["retrained"], "", network) for seed in range(max(2, told["seeds"]))]
    return [Unit("original", 0, told["original"], "", network), *retrained]


def bank(told: Mapping[str, Any]) -> list[Unit]:
    """An original and retrained models by the fast protocol; none where the plan wants none."""
    fast, number = told["bank"], told["bank"]["models"]
    retrained = [Unit("fast_retrained", seed, fast["retrained"], "", "fastnet") for seed in range(number)]
    return [Unit("fast_original", 0, fast["original"], "", "fastnet"), *retrained] if number else []


def methods(told: Mapping[str, Any]) -> Iterator[Unit]:
    """Every method by every seed, a whole seed after another."""
    retrained = tuple(unit.key for unit in references(told)[1:])
    for seed in range(told["seeds"]):
        for name, recipe in told["methods"].items():
            yield Unit(name, seed, recipe, "original.seed0", told["architecture"], retrained)


def steps(told: Mapping[str, Any], device: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The same optimizer steps written in several ways; bare ones are a CUDA graph on a GPU."""
    import torch

    speed = importlib.import_module("speed")
    precision = torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    rows = {"ours": speed.ours, "floor": speed.floor}
    if told["quick"]:
        case = speed.Case("quick", "train", 0.5, dict.fromkeys(speed.SPLITS, 48), 1, 1, 16, "convnet")
    else:
        case = speed.Case("Hybrid-4", "train", 0.5, {"retain": 6_400, "forget": 704, "validation": 704, "test": 704})
        rows |= {"notebook": partial(speed.today, advised=False), "advice": partial(speed.today, advised=True)}
    setting = speed.Setting(case, device, precision)
    runs = speed.measure(setting, rows, 1 if told["quick"] else 3)
    for line in speed.summary(setting, {name: runs.get(name, runs["floor"]) for name in speed.ROWS if name != "tracked"}):
        if line["row"] in runs:
            yield line["row"], line


def at_once(told: Mapping[str, Any], folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """An epoch of small models, one after another and as one stack."""
    from lethe.engine import engine
    from lethe.engine.options import RunOptions
    from lethe.engine.stacked_models import Stack, stacked
    from lethe.models import architectures
    from lethe.recipes.optimizers import SGD
    from lethe.recipes.recipe import Phase, Term
    from lethe.recipes.schedules import Constant

    data, compute = _data(folder), _compute(folder)
    recipe = (Phase("train", 1, (Term("retain"),), 16 if told["quick"] else 128, Constant(0.01), optimizer=SGD(0.9, 0.0005)),)
    for models in (1, 2 if told["quick"] else 16):
        seeds = tuple(range(models))
        for repeat in range(2):  # the first warms up
            networks = [compute.place(architectures.build("convnet", len(_images(folder).classes), seed)) for seed in seeds]
            ways = {"step_inputs": Stack(seeds)} if models > 1 else {}
            model = stacked(networks) if models > 1 else networks[0]
            *_, last = engine.run(recipe, model, data, RunOptions(autocast=compute.autocast, **ways))
            if repeat:
                yield f"{models} at once", {"images_per_second": round(last.images / last.seconds, 1), "seconds": round(last.seconds, 3)}


def run(asked: argparse.Namespace) -> None:
    """Run all parts within the time, and write what they found."""
    import torch

    from lethe.data.images import save_images
    from lethe.data.sources import SourceOptions

    told = json.loads(asked.plan.read_text())
    cuda = torch.cuda.is_available()
    workers = asked.workers if asked.workers is not None else (8 if cuda else 1)
    told |= {"quick": asked.quick, "threads": max(1, (os.cpu_count() or 1) // max(1, workers))}
    if asked.quick:
        told |= {"architecture": "convnet", "seeds": 1, "methods": dict([*told["methods"].items()][:: max(1, len(told["methods"]) // 3)])}
    speed = importlib.import_module("speed")
    device = torch.device("cuda" if cuda else "cpu")
    about = {"machine": speed.machine(device, torch.bfloat16 if cuda else torch.float32), "plan": told, "workers": workers}
    record = Record(asked.write, about, asked.minutes)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "plan.json").write_text(json.dumps(told))
        read = importlib.import_module("lethe.data.image_folder").read_folder
        limit = 20 if asked.quick else told["limit"]
        save_images(read(SourceOptions(asked.root, told["image_size"], limit)), folder / "images.safetensors", "")
        record.add("images", "read", {"images": len(_images(folder).ids)})
        context = get_context("spawn")  # a process that was forked can't use the GPU
        pool = ProcessPoolExecutor(workers, mp_context=context) if workers > 1 else None
        try:
            train_all("references", references(told), folder, record, pool)
            for part, results in (("steps", steps(told, device)), ("at once", at_once(told, folder))):
                if record.over:
                    record.add(part, "all", {"left_out": "the time was over"})
                    continue
                for key, value in results:
                    record.add(part, key, value)
            train_all("bank", bank(told), folder, record, pool)
            if (folder / "original.seed0.safetensors").exists():
                train_all("methods", [*methods(told)], folder, record, pool)
        finally:
            if pool:
                pool.shutdown(cancel_futures=True)


def _divided(words: list[str]) -> tuple[list[str], list[str], list[str]]:
    """What is before --, it, and what is after it: keys of the configuration."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at : at + 1], words[at + 1 :]


def main() -> None:
    """Read the command line, and write a plan or run one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    plans = verbs.add_parser("plan", help="write a plan, where Lethe is installed")
    plans.add_argument("plan", type=Path)
    plans.add_argument("--seeds", type=int, default=3)
    plans.add_argument("--shares", nargs="*", default=[], help="shares of the cost of retraining at which every method runs")
    plans.add_argument("--methods", nargs="*", default=[], help="the methods that run at these shares; default: all")
    plans.add_argument("--bank", type=int, default=0, help="retrained models by the fast protocol (recipes/fast_protocol.py)")
    runs = verbs.add_parser("run", help="run a plan, where there is a GPU")
    runs.add_argument("plan", type=Path)
    runs.add_argument("--root", type=Path, required=True, help="train/<class>/* and test/<class>/*")
    runs.add_argument("--write", type=Path, required=True, help="the results, as JSON")
    runs.add_argument("--minutes", type=float, default=10)
    runs.add_argument("--workers", type=int, help="processes that share the GPU; default 8, without a GPU 1")
    runs.add_argument("--quick", action="store_true", help="few images, a small network, one epoch a phase")
    typed, _, keys = _divided(sys.argv[1:])
    asked = parser.parse_args(typed)
    if asked.verb == "plan":
        asked.plan.write_text(json.dumps(plan(keys, asked.shares, asked.seeds, asked.methods, asked.bank), indent=1) + "\n")
    else:
        run(asked)


if __name__ == "__main__":
    main()
