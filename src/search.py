"""Search better arguments of --search.method. `adopt <trial> [<name>]`: write a trial into params.yaml as a variant."""

import sys
from dataclasses import replace
from functools import partial

from lethe._util.errors import UserError
from lethe.cli.main import main
from lethe.config.loader import Config


def chosen(config: Config) -> Config:
    if "method" in config.given:
        raise UserError(f"method is {config.given['method']} (command line); a search takes --search.method")
    return replace(config, method=config.search.method)


def work(config: Config) -> None:
    from lethe.search.study import search

    search(chosen(config))


def adopt(words: list[str], config: Config) -> None:
    from lethe.search.study import adopt

    if not 1 <= len(words) <= 2 or not words[0].isdecimal():
        raise UserError(f"adopt {' '.join(words)}: it takes the number of a trial and, if you like, a name: adopt 17 gentle")
    adopt(chosen(config), int(words[0]), *words[1:])


if __name__ == "__main__":
    said = sys.argv[1:]
    if said[:1] == ["adopt"]:
        keys = next((n for n, word in enumerate(said) if word.startswith("--")), len(said))
        sys.exit(main("search", partial(adopt, said[1:keys]), said[keys:]))
    sys.exit(main("search", work))
