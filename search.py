"""python search.py --num-samples 5000: scores untrained ViTs against a trained teacher and keeps the best."""

import sys

from tvt_ray.cli.main import run, script_parser
from tvt_ray.cli.search import add

if __name__ == "__main__":
    sys.exit(run(script_parser("search.py", add)))
