"""Measure how wide the interval of `residual` is by the number of perturbed copies that a model classifies (evaluate.perturbed).

    python bench/perturbed.py [--copies 250,500,1000,2000,null] [--run.workspace demo ...]

The original and the retrained model of a workspace, and the keys of any stage. For each number: the original's residual at each radius
with half the width of its 95 % interval, the share of the forget images that are sampled, and the seconds of processor time a model.
"""

import sys
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch

from lethe.config import loader
from lethe.evaluation import inference
from lethe.evaluation.catalogue import measure_model
from lethe.evaluation.context import EvaluationContext
from lethe.evaluation.logits_table import LogitsTable
from lethe.evaluation.measures import TAUS, residual
from lethe.evaluation.registry import registered
from lethe.models import checkpoint
from lethe.workspace import artifacts, settings
from lethe.workspace.prepare import prepare
from lethe.workspace.workspace import Prepared


def perturbed(prepared: Prepared, name: str, copies: int | None) -> LogitsTable:
    """The run's table, with so many perturbed copies."""
    network, table = prepared.network(0), artifacts.logits(prepared, name)
    network.load_state_dict(checkpoint.load(prepared.layout.weights(name))[0])
    row = {id_: number for number, id_ in enumerate(prepared.images.ids)}
    columns = inference.perturbed_columns(network, prepared.data, prepared.splits["forget"], prepared.images.ids, TAUS, copies)
    return replace(table, columns={key: column[[row[id_] for id_ in table.ids]] for key, column in columns.items()})


def main() -> None:
    words = sys.argv[1:]
    asked = "250,500,1000,2000,null"
    if "--copies" in words:
        at = words.index("--copies")
        asked = words[at + 1]
        del words[at : at + 2]
    prepared = prepare(loader.load(words, settings=settings.layer))
    torch.set_num_threads(prepared.config.run.threads or torch.get_num_threads())
    forget = prepared.splits["forget"]
    measure = next(each for each in registered() if each.function is residual)
    print(f"{len(forget)} forget images\n")
    print(
        f"| copies | images x copies of each | seconds | {' | '.join(f'residual.{tau:g}' for tau in TAUS)} |\n|{'---|' * (3 + len(TAUS))}"
    )
    for number in asked.split(","):
        copies = None if number == "null" else int(number)
        started = time.process_time()
        model, reference = (perturbed(prepared, name, copies) for name in ("original", "retrained"))
        seconds = (time.process_time() - started) / 2
        rows, draws = inference.perturbed_sample([prepared.images.ids[image] for image in forget], copies)
        found = measure_model(EvaluationContext(model, [reference]), [measure])
        cells = [f"{one.value:.3f} ± {(one.ends()[1] - one.ends()[0]) / 2:.3f}" for one in found.values() if not isinstance(one, str)]
        print(f"| {number} | {len(rows)} x {draws} | {seconds:.1f} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
