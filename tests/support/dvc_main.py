"""What `dvc <words>` does, for the warm parent to fork."""

import sys

from dvc.cli import main

sys.exit(main(sys.argv[1:]))
