"""Logits table and scores of `--method M`; M may also be original, retrained, several (model_1,model_3), or all that have a table.

Scores are worked out anew from the tables that are there; a model is read only where its table is missing."""

import sys
from functools import partial

from lethe.cli.main import main
from lethe.config.loader import STAGE, Config


def work(config: Config, names: list[str]) -> None:
    from lethe._util.errors import UserError
    from lethe.pipeline.unlearn import evaluate

    for name in names:
        if name.partition("/")[0] not in {*config.methods, *STAGE, "all"}:
            raise UserError(f"method is {name}; evaluate takes {', '.join(config.methods)}, {', '.join(STAGE)}, several of these, or all")
    evaluate(config, names)


def taken(said: list[str]) -> list[str]:
    """What `--method` names and the configuration would refuse, taken out of `said`: references, several methods, all."""
    for at, word in enumerate(said):
        key, equals, value = word.partition("=")
        value = value if equals else "".join(said[at + 1 : at + 2])
        names = value.split(",")
        if key == "--method" and (len(names) > 1 or value in {*STAGE, "all"}):
            del said[at : at + (1 if equals else 2)]
            return names
    return []


if __name__ == "__main__":
    said = sys.argv[1:]
    sys.exit(main("evaluate", partial(work, names=taken(said)), said))
