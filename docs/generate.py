"""docs/keys.md from the configuration, docs/methods.md and docs/measures.md from their lists, the README's table of speed from its bench's
JSON. `make docs` writes, `make test` compares."""

import inspect
import json
import sys
from pathlib import Path
from typing import Any

from lethe.config import loader as config
from lethe.config.describe import accepts
from lethe.config.method_schema import Arguments
from lethe.config.schema import SECTIONS, flatten, leaves
from lethe.evaluation import catalogue, registry
from lethe.recipes.ordering import short
from lethe.recipes.paper_methods import METHODS, as_run
from lethe.recipes.recipe import Phase

HERE = Path(__file__).parent
NOTE = "<!-- written by `make docs`; edit the code it comes from -->\n"


def shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def keys() -> str:
    """Every key: what it takes, its value in params.yaml, what it means."""
    defaults = config.load()
    flat = {}
    for name in SECTIONS:
        flat |= flatten(getattr(defaults, name).model_dump(mode="json"), name)
    lines = ["# Keys", NOTE, "The same dotted name in `params.yaml`, `-P key=value` (mlflow run), `--key value` (python src/...) and "]
    lines[-1] += "`-S key=value` (dvc exp run). Lists are written `cat,dog`, nothing is written `null`.\n"
    lines += ["| Key | Takes | Default | Meaning |", "|---|---|---|---|"]
    for name, kind in SECTIONS.items():
        for key, info in leaves(kind, name):
            lines.append(f"| `{key}` | {accepts(info)} | {shown(flat[key])} | {info.description} |")
    lines.append(f"| `method` | {', '.join(defaults.methods)}, or a variant | {defaults.method} | what to unlearn by |\n")
    lines += ["## `methods.<method>.<argument>`\n", "The same word means the same in every method that has it.\n"]
    lines += ["| Argument | Takes | Meaning |", "|---|---|---|"]
    lines += [f"| `{word}` | {accepts(info)} | {info.description} |" for word, info in Arguments.model_fields.items()]
    words = list(Arguments.model_fields)
    lines += ["\n## Their defaults\n", "| Argument | " + " | ".join(defaults.methods) + " |", "|---" * (len(defaults.methods) + 1) + "|"]
    for word in words:
        values = [shown(getattr(section, word)) if word in type(section).model_fields else "" for section in defaults.methods.values()]
        lines.append(f"| `{word}` | " + " | ".join(values) + " |")
    lines += ["\n## A variant\n", "```yaml", "methods:", "  gentle: {like: hybrid_4, peak: -0.5, epochs: 20}", "```\n"]
    lines.append("runs as `--method gentle`; its files are called `gentle`.")
    return "\n".join(lines) + "\n"


def methods() -> str:
    """One table of what an epoch is and costs, then each method's own words."""
    lines = [
        "# The methods",
        NOTE,
        "R is an optimizer step on a retain batch, F on a forget batch at a negative scale. The short form is that of ",
    ]
    lines[-1] += "CIFAR-10 at the defaults (352 retain batches, 40 forget batches of 128), first epoch of each phase.\n"
    lines += ["| Method | Phase | Epochs | One epoch | Steps in all | Trains | Scale |", "|---|---|---|---|---|---|---|"]
    for name in METHODS:
        recipe = config.load(["--method", name]).recipe()
        for phase in recipe:
            assert isinstance(phase, Phase)
            sizes = {letter: {"retain": 352, "forget": 40}[stream] for letter, stream in phase.streams.items()}
            steps = sum(len(phase.word(sizes, epoch)) for epoch in range(phase.epochs))
            scale = next((term.weight for term in phase.terms if term.stream == "forget"), "")
            word = short(iter(phase.word(sizes, 0)))
            lines.append(f"| `{name}` | {phase.name} | {phase.epochs} | {word} | {steps:,} | `{phase.trains!r}` | {scale} |")
    for name, function in {**METHODS, "as_run": as_run}.items():
        lines += [f"\n## {name}\n", inspect.getdoc(function) or ""]
    return "\n".join(lines) + "\n"


def measures_() -> str:
    """What is measured, on one page; the arithmetic's own words stand in the code."""
    tiers = "; ".join(f"T{tier} at least {n}" for tier, n in registry.TIERS.items() if n)
    lines = [
        "# The measures",
        NOTE,
        "The question: can anyone tell the unlearned model from one that never saw the forget set? So most numbers mean something only",
        "beside a **retrained** model's, and the aim is rarely 0 or 100. All are arithmetic on logits tables;",
        "`python src/evaluate.py` works them out anew from the tables that are there, without a model.\n",
        f"**Tiers**: T0 takes no retrained model; {tiers}. A measure about several unlearned models (klom, epsilon, neurips)",
        "takes as many of those; `ulira` that many models that the method unlearned on other requests, and no retrained one. Where a tier",
        "is not met, the scores say what is missing in place of a number.\n",
        "**The bank**: retrained models come from `bank/<key>/` where there are any, else there is the one of `models/`. That one is",
        "held out of the bank, so its row says what perfect unlearning scores; the original's row says what doing nothing does. A",
        "measure that does not tell those two apart has no power here (`power` in `report/measures.csv`). Fine-tuning on retain is",
        "`model_1`. Beside klom, epsilon and neurips stands what two halves of the bank score, each of half as many models: that is",
        "what chance alone gives.\n",
        "**Intervals** are of 95 %: bootstrap over examples (1,000 resamples, percentiles, seeded) for one model, Student's t over seeds",
        "for several. They are of these weights and this request; attacks are not fitted anew to every resample.\n",
        "**Scores**: `scores/<method>.json` holds under `measures`, by id, `value`, `low`, `high` and, where the aim is the retrained",
        "model's, its own as `reference`; or `missing`. In MLflow a measure of a split is `<split>.<measure>`, else its id.\n",
        "**Requests that leave a class out** (whole classes, one person's images): forget is compared with the held-out images of its",
        "own classes, weighted to its class histogram. `mia.svc` stays as published, since it compares forget with nothing.\n",
        "| Id | Is | Aim | Tier | Takes | Interval | Source |",
        "|---|---|---|---|---|---|---|",
    ]
    for each in catalogue.all_measures():
        parts = [part for part in each.parts if part]
        id_ = f"`{each.id}`" + (f" `{{{','.join(f'.{part}' for part in parts)}}}`" if parts else "")
        takes = "; ".join(registry.NEEDS[need][0] for need in each.needs if need in registry.NEEDS)
        cells = [id_, each.about, str(each.target), f"T{each.tier}", takes, each.interval, each.source]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


SPEED = HERE.parent / "results" / "speed_cpu.json"
BEGIN, END = "<!-- from results/speed_cpu.json by `make docs` -->", "<!-- end -->"


def readme() -> str:
    """The README with its table of speed made anew."""
    before, _, rest = (HERE.parent / "README.md").read_text().partition(BEGIN)
    _, _, behind = rest.partition(END)
    return before + BEGIN + "\n" + speed() + END + behind


def speed() -> str:
    found = json.loads(SPEED.read_text())
    where = found["machine"]
    lines = [
        f"On {where['cpu']}, {where['threads']} of {where['cores']} cores, torch {where['torch']}, {where['precision']}; medians of "
        f"{len(next(iter(found['cases'][0]['runs'].values())))} rounds, all rows by turns in one process.\n"
    ]
    for case in found["cases"]:
        sizes = case["sizes"]
        lines += [f"**{case['title']}**: ResNet-18, {sizes['retain']:,} retain and {sizes['forget']:,} forget images, batch 128.\n"]
        lines += ["| | images/s | times the notebook | times advised | floor's step / ours | evaluation |", "|---|---|---|---|---|---|"]
        for line in case["lines"]:
            shares = [f"{line[key]:.0%}" for key in ("steps_share_of_floor", "evaluation_share")]
            numbers = [f"{line['images_per_second']:.0f}", f"{line['times_notebook']:.2f}", f"{line['times_advice']:.2f}", *shares]
            lines.append(f"| {found['rows'][line['row']]} | " + " | ".join(numbers) + " |")
        lines.append("")
    watching = [line["watching_share"] for case in found["cases"] for line in case["lines"] if "watching_share" in line]
    if watching and "start_up" in found:
        lines.append(
            f"What watches a run takes {' and '.join(f'{share:.1%}' for share in watching)} of these runs "
            "of three short epochs behind their start; "
            f"from the command line to the first step it is {found['start_up']['seconds']:.1f} s.\n"
        )
    return "\n".join(lines)


PAGES = {"../README.md": readme, "keys.md": keys, "methods.md": methods, "measures.md": measures_}

if __name__ == "__main__":
    for page, write in PAGES.items():
        (HERE / page).write_text(write())
    sys.exit(0)
