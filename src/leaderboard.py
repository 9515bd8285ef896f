"""Methods at stated shares of the cost of retraining, in one table. `--method a,b` or `all`, `--share 0.1,0.2`."""

import sys

from lethe.cli.main import main

if __name__ == "__main__":
    sys.exit(main("leaderboard"))
