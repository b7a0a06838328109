"""The student that search and refine choose, against hand-designed ones, the largest, and whom single scores put first.

python benchmarks/headline.py --dataset parquet:PATH --teacher-weights FILE [--num-train 5000] [--seeds 3] [--out DIR]

Takes a part of the dataset, as Parquet in DIR; then search, refine, and `tvt distill --baselines`, by headline.yaml
(--config). Goes on where it was. Ends with one JSON object: the comparison, and what refine spent.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from commands import tvt, write_parts

from tvt_ray.errors import UsageError

CONFIG = Path(__file__).with_suffix(".yaml")
RIVALS = "largest,deit,pit,capacity,tvt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", required=True, metavar="NAME")
    parser.add_argument("--teacher-weights", required=True, metavar="FILE")
    parser.add_argument("--config", default=str(CONFIG), metavar="FILE")
    parser.add_argument("--num-train", type=int, default=5000, metavar="N", help="validation is carved from them")
    parser.add_argument("--num-test", type=int, default=2000, metavar="N")
    parser.add_argument("--rivals", default=RIVALS, metavar="NAMES")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--out", type=Path, default=Path("runs/headline"), metavar="DIR")
    args = parser.parse_args()
    sizes = {"train": {"train": args.num_train}, "test": {"test": args.num_test}}
    try:
        part = write_parts(args.dataset, args.out.absolute() / "data", sizes, seed=0)
    except UsageError as error:
        parser.error(str(error))
    run = str(args.out / "run")
    if not Path(run).exists():
        asked = ["--dataset", part, "--teacher-weights", args.teacher_weights]
        tvt("search", "--config", args.config, *asked, "--run-dir", run)
    refined = tvt("refine", "--run-dir", run, "--resume")
    compared = tvt("distill", "--run-dir", run, "--baselines", args.rivals, "--seeds", str(args.seeds), "--resume")
    print(json.dumps({"epochs_of_refine": refined["epochs_spent"], **compared["baselines"]}))


if __name__ == "__main__":
    main()
