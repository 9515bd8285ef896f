"""The main job on the bundled digits: params.yaml under its section `demo`. `--full`: every method, several seeds, the bank."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("demo"))
