"""python search.py --num-samples 5000: scores untrained ViTs against a trained teacher and keeps the best."""

import sys

from tvt_ray.cli import add_search, run, script_parser

if __name__ == "__main__":
    sys.exit(run(script_parser("search.py", add_search)))
