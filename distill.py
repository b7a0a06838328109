"""python distill.py --run-dir DIR --top-k 2: trains the best architectures of a search with its teacher."""

import sys

from tvt_ray.cli.distill import add
from tvt_ray.cli.main import run, script_parser

if __name__ == "__main__":
    sys.exit(run(script_parser("distill.py", add)))
