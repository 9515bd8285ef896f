"""Tables 7 and 8 and four figures out of the score files and epoch tables of a workspace: report/. `card`: the unlearning card of
--method, in cards/; `card --list <id>`: every card whose request names that image."""

import sys
from functools import partial

from lethe._util.errors import UserError
from lethe.cli.main import main
from lethe.config.loader import Config


def work(config: Config) -> None:
    from lethe.reporting.report import report

    report(config)


def card(config: Config, ids: list[str]) -> None:
    from lethe.reporting.card import card, listed

    if len(ids) > 1 or "" in ids:
        raise UserError(f"list is {' '.join(ids) or repr('')}; it takes the id of one image, e.g. --list train/5940")
    if ids:
        listed(config, ids[0])
    else:
        card(config)


def taken(said: list[str]) -> list[str]:
    """What `--list` names, taken out of `said`: it is no key."""
    ids: list[str] = []
    for at in reversed(range(len(said))):
        key, equals, value = said[at].partition("=")
        if key == "--list":
            ids.insert(0, value if equals else "".join(said[at + 1 : at + 2]))
            del said[at : at + (1 if equals else 2)]
    return ids


if __name__ == "__main__":
    said = sys.argv[1:]
    if said[:1] == ["card"]:
        del said[0]
        sys.exit(main("report", partial(card, ids=taken(said)), said))
    sys.exit(main("report", work))
