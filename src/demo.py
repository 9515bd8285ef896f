"""The main job on the bundled digits: params.yaml with its section `demo` laid over it, the same stages.

`--full`: section `full` too. A bank of 64 originals and as many retrained models; hybrid_4 and model_1 by 64 seeds, the report's other
methods by 8; all of it measured beside the bank, and the report. What is there is not made again."""

import sys
from dataclasses import replace

from lethe.cli.main import main
from lethe.config.loader import Config

AS_MANY = ("hybrid_4", "model_1")  # by as many seeds as the bank has retrained models; the others by run.seeds


def work(config: Config) -> None:
    from lethe.pipeline.unlearn import evaluate, unlearn

    unlearn(config)
    if config.evaluate.swap or config.evaluate.shadows:
        evaluate(config, ["original", config.method])


def full(config: Config) -> None:
    from lethe.pipeline.bank_training import grow
    from lethe.pipeline.unlearn import evaluate, unlearn
    from lethe.recipes.paper_methods import TEN
    from lethe.reporting.report import report

    for method in TEN:
        run = config.run.model_copy(update={"seeds": config.retrain.seeds if method in AS_MANY else config.run.seeds, "evaluate": False})
        unlearn(replace(config, method=method, run=run))
    grow(config)
    evaluate(config, ["original", "retrained", *TEN], anew=False)
    report(config)


if __name__ == "__main__":
    said = [word for word in sys.argv[1:] if word != "--full"]
    sys.exit(main("demo", full, said, "full") if "--full" in sys.argv else main("demo", work, overlay="demo"))
