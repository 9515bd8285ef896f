"""What `dvc <words>` does, for the warm parent to fork."""

import sys
from pathlib import Path

from dvc.cli import main
from ruamel.yaml import YAML

sys.path.append(str(Path(__file__).parents[1]))
from support import yaml_once

YAML.load = yaml_once.load
sys.exit(main(sys.argv[1:]))
