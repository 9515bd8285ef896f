"""Ten deletion requests one after the other, by three methods: do earlier requests come back, and what is left of the model?

    python bench/sequential.py --workspace sequential --write results/sequential
    python bench/sequential.py --figure results/sequential        (of its table)

Every request goes through the program as a user would take it: prepare, retrain, unlearn, evaluate, erase. So the accepted result becomes
the workspace's original, the next request starts from it, and the images of all requests so far are missing from what is retrained. After
request k each of the requests 1 to k is measured: forget accuracy, AUC (of a lower loss on its images than on test images), and the
verdict, next to four models retrained without the images of requests 1 to k, and to the original of that request. The images of erased
requests come from the data source, since the workspace no longer has them.
"""

import argparse
import csv
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import Module

import lethe
from lethe.cli.main import main as command
from lethe.config.loader import Config, load
from lethe.data import sources
from lethe.data.digits import read_digits
from lethe.data.images import Images
from lethe.data.sources import SourceOptions, register_data_source
from lethe.models import architectures, checkpoint
from lethe.workspace.layout import Layout
from lethe.workspace.prepare import load_existing
from lethe.workspace.request import source_keys

METHODS = ("model_1", "hybrid_4", "lethe")
REQUESTS, SIZE, REFERENCES = 10, 20, 4
KEYS = {"data.source": "digits_16", "data.image_size": "16", "data.limit": "30", "retrain.epochs": "30", "pretrain.epochs": "30"}
KEYS |= {"run.log_model": "none", "run.evaluate_every": "1000"}
LETHE = {"retain_epochs": "12", "weight": "0.5", "pull_on": "loss", "fade": "0", "renew_every": "0.15", "reinit": "", "lr": "0.1"}
LETHE |= {"batch_size": "16", "forget_batch_size": "16"}  # the demo's when results/sequential was measured
KEYS |= {f"methods.lethe.{key}": value for key, value in LETHE.items()}
COLUMNS = ("method", "k", "request", "forget", "auc", "verdict", "forget_retrained", "auc_retrained", "auc_before")
COLUMNS += ("retain", "test", "retain_retrained", "test_retrained")
Row = dict[str, Any]


@register_data_source("digits_16", image_size=16, near_copies=False)
def digits_16(options: SourceOptions) -> Images:
    """The digits at half their size in each direction: a quarter of the work."""
    images = read_digits(options)
    return replace(images, pixels=np.ascontiguousarray(images.pixels[:, :, ::2, ::2]))


@dataclass(frozen=True)
class Step:
    """The models of one request: what it started from, its result, and models retrained without it and all before it."""

    request: tuple[str, ...]
    original: Module
    result: Module
    retrained: Sequence[Module]
    retain: tuple[str, ...]


def words(folder: Path, **more: str) -> list[str]:
    """The demo's keys, less of everything, as a command line has them."""
    demo = load([], overlay="demo")
    laid = {key: text for key, text in demo.laid.items() if not key.startswith("data.forget")}
    given = {**laid, **KEYS, "run.workspace": str(folder), **more}
    return [word for key, text in given.items() for word in (f"--{key}", text)]


def run(verb: str, *argv: str) -> None:
    if code := command(verb, argv):
        raise SystemExit(f"{verb} ended with {code}")


def steps(method: str, folder: Path, requests: Sequence[Sequence[str]], known: dict[int, list[Module]]) -> Iterator[Step]:
    """Take one request after the other through the program; `known`: retrained models by number of images to retain, for all methods."""
    layout = Layout(folder)
    for request in requests:
        listed = folder.parent / f"{method}.txt"
        listed.write_text("\n".join(request) + "\n")
        argv = words(folder, method=method, **{"data.forget.ids": str(listed)})
        run("prepare", *argv)
        if not layout.weights("original").exists():
            run("pretrain", *argv)
        run("retrain", *argv)
        run("unlearn", *argv)
        config = load(argv)
        original, result = (model(config, layout.weights(name)) for name in ("original", method))
        own, left = model(config, layout.weights("retrained")), retained(config)
        references = known.setdefault(len(left), [own, *retrained(config)] if len(left) not in known else [])
        if not all(a.equal(b) for a, b in zip(own.parameters(), references[0].parameters(), strict=True)):
            raise SystemExit(f"{method}: the retrained model without {len(requests)} requests is not that of the other methods")
        yield Step(tuple(request), original, result, references, left)
        run("erase", "--run.workspace", str(folder), "--method", method, "--yes")


def retained(config: Config) -> tuple[str, ...]:
    prepared = load_existing(config)
    return tuple(prepared.images.ids[i] for i in prepared.splits["retain"])


def retrained(config: Config) -> list[Module]:
    """More retrained models, by other seeds than the workspace's own."""
    prepared, models = load_existing(config), list[Module]()
    for seed in range(1, REFERENCES):
        network = prepared.network(seed)
        recipe = prepared.reference_recipe("retrained")
        for _ in lethe.run(recipe, network, prepared.data, seed=seed, evaluate=lambda *_: {}, evaluate_every=10**6):
            pass
        models.append(network)
    return models


def model(config: Config, path: Path) -> Module:
    network = architectures.build(config.model.architecture, 10, 0)
    network.load_state_dict(checkpoint.load(path)[0])
    return network


def measure(method: str, done: Sequence[Step], images: Images, config: Config) -> Iterator[Row]:
    """Every request so far, after the last of them."""
    last, position = done[-1], {id_: i for i, id_ in enumerate(images.ids)}

    def of(ids: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        chosen = np.array([position[id_] for id_ in ids])
        return torch.from_numpy(images.pixels[chosen]), torch.from_numpy(images.labels[chosen])

    held_out = images.ids[images.train :]
    common = {"retain": of(last.retain), "validation": of(held_out[::2]), "test": of(held_out[1::2])}
    for number, step in enumerate(done, 1):
        score = lethe.evaluate(
            last.result,
            forget=of(step.request),
            references=last.retrained,
            original=step.original,
            at_random=True,
            mean=config.data.mean,
            std=config.data.std,
            **common,
        )
        auc = {name: round(1 - value, 4) for name, one in score.measured.items() if (value := one.value("mia.over")) is not None}
        theirs = score.measured["retrained"].accuracy
        row = {"method": method, "k": len(done), "request": number, "forget": score.accuracy["forget"], "auc": auc["unlearned"]}
        row |= {
            "verdict": score.verdict,
            "forget_retrained": theirs["forget"],
            "auc_retrained": auc["retrained"],
            "auc_before": auc["original"],
        }
        row |= {split: score.accuracy[split] for split in ("retain", "test")}
        yield row | {f"{split}_retrained": theirs[split] for split in ("retain", "test")}


def rows(folder: Path) -> Iterator[Row]:
    config = load(words(folder, **{"data.forget.count": str(SIZE)}))
    images = sources.read(config.data.source, **source_keys(config), cache=folder)
    drawn = np.random.default_rng(0).permutation(images.train)[: REQUESTS * SIZE].reshape(REQUESTS, SIZE)
    requests = [[images.ids[i] for i in chosen] for chosen in drawn]
    known: dict[int, list[Module]] = {}
    for method in METHODS:
        done: list[Step] = []
        for step in steps(method, folder / method, requests, known):
            done.append(step)
            yield from measure(method, done, images, config)


def written(table: Iterator[Row], folder: Path) -> Iterator[dict[str, str]]:
    """Write each row as soon as it is measured."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "sequential.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in table:
            writer.writerow(row)
            file.flush()
            yield {key: str(value) for key, value in row.items()}


# --- what becomes of the table --------------------------------------------------------------------------------------------


def figure(table: Sequence[Mapping[str, str]]) -> bytes:
    """AUC of every request, and accuracies of the model, over the number of requests; a column for each method."""
    import io

    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure((11, 6), layout="constrained")
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(2, len(METHODS), sharex=True, sharey="row", squeeze=False)
    for column, method in enumerate(METHODS):
        own = [row for row in table if row["method"] == method]
        upper, lower = axes[0][column], axes[1][column]
        for request in range(1, REQUESTS + 1):
            line = [(int(row["k"]), float(row["auc"]) - float(row["auc_retrained"])) for row in own if int(row["request"]) == request]
            upper.plot(
                *zip(*line, strict=True), color=colormaps["viridis"](request / (REQUESTS + 1)), marker=".", label=f"request {request}"
            )
        upper.axhline(0, color="#222222", linewidth=0.8)
        upper.set_title(method)
        last = [next(row for row in own if int(row["k"]) == k) for k in range(1, REQUESTS + 1)]
        for split, colour in (("retain", "#0072B2"), ("test", "#D55E00")):
            lower.plot(range(1, REQUESTS + 1), [float(row[split]) for row in last], color=colour, marker=".", label=split)
            theirs = [float(row[f"{split}_retrained"]) for row in last]
            lower.plot(range(1, REQUESTS + 1), theirs, color=colour, linestyle="--", label=f"{split}, retrained")
        lower.set_xlabel("requests so far (k)")
        for each in (upper, lower):
            each.grid(alpha=0.25)
    axes[0][0].set_ylabel("AUC of each request, minus retrained")
    axes[1][0].set_ylabel("accuracy (percent)")
    axes[0][-1].legend(fontsize=6, ncols=2)
    axes[1][-1].legend(fontsize=7)
    content = io.BytesIO()
    drawing.savefig(content, format="png", dpi=120, metadata={"Software": None})
    return content.getvalue()


def summary(table: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Lines of a Markdown table: of each method after each request."""
    yield "| method | k | AUC of request k | mean AUC of the earlier ones | retrained | told apart | retain | test | test, retrained |"
    yield "|---|---:|---:|---:|---:|---|---:|---:|---:|"
    for method in METHODS:
        for k in range(1, REQUESTS + 1):
            own = [row for row in table if row["method"] == method and int(row["k"]) == k]
            last, before = own[-1], [float(row["auc"]) for row in own[:-1]]
            told = [f"{row['request']} {row['verdict']}" for row in own if row["verdict"] not in ("as_retrained", "cannot_tell")]
            cells = [method, str(k), f"{float(last['auc']):.3f}", f"{statistics.mean(before):.3f}" if before else ""]
            cells += [f"{statistics.mean(float(row['auc_retrained']) for row in own):.3f}", ", ".join(told) or "none"]
            yield f"| {' | '.join([*cells, *(f'{float(last[key]):.1f}' for key in ('retain', 'test', 'test_retrained'))])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--write", type=Path, help="a folder for sequential.csv and sequential.png")
    parser.add_argument("--figure", type=Path, help="draw sequential.png again from sequential.csv in this folder")
    asked = parser.parse_args()
    if asked.figure is None:
        folder = (asked.workspace or Path(tempfile.mkdtemp()) / "sequential").resolve()
        folder.mkdir(parents=True)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        table = list(written(rows(folder), asked.write or folder))
        shutil.rmtree(folder) if asked.workspace is None else None
    else:
        with (asked.figure / "sequential.csv").open(newline="") as file:
            table = list(csv.DictReader(file))
    if to := asked.figure or asked.write:
        (to / "sequential.png").write_bytes(figure(table))
    print("\n".join(summary(table)))


if __name__ == "__main__":
    main()
