"""The student that search and refine choose, against hand-designed ones, the largest, and whom single scores put first.

python benchmarks/headline.py --dataset parquet:PATH --teacher-weights FILE [--num-train 5000] [--seeds 3] [--out DIR]

Takes a part of the dataset, as Parquet in DIR; then search, refine, and `tvt distill --baselines`, by headline.yaml
(--config). Goes on where it was. Ends with one JSON object: the comparison, and what refine spent.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.settings import DataSettings
from tvt_ray.data.splits import Split

CONFIG = Path(__file__).with_suffix(".yaml")
RIVALS = "largest,deit,pit,capacity,tvt"


def tvt(*words: str) -> dict[str, Any]:
    """The JSON object that a command ends with; its progress is shown."""
    command = [sys.executable, "-m", "tvt_ray", *words, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"error: tvt {' '.join(words)} ended with {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def write_part(split: Split, count: int, path: Path, names: tuple[str, ...]) -> None:
    """`count` images of a split, drawn by a fixed seed, as a Parquet file with PNGs."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(split))[:count])
    images, labels = [], []
    for index in chosen:
        image, label = split[int(index)]
        buffer = io.BytesIO()
        (image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))).save(buffer, "PNG")
        images.append({"bytes": buffer.getvalue(), "path": None})
        labels.append(int(label))
    features = {"label": {"names": list(names), "_type": "ClassLabel"}, "image": {"_type": "Image"}}
    table = pa.table({"image": images, "label": labels})
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(table.replace_schema_metadata(about), path)


def make_part(dataset: str, num_train: int, num_test: int, folder: Path) -> None:
    """train.parquet and test.parquet in a folder, unless they are there."""
    if (folder / "test.parquet").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    data = load_dataset(DataSettings(name=dataset))
    write_part(data.train, num_train, folder / "train.parquet", data.class_names)
    write_part(data.test, num_test, folder / "test.parquet", data.class_names)


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
    make_part(args.dataset, args.num_train, args.num_test, args.out / "data")
    run = str(args.out / "run")
    if not Path(run).exists():
        asked = ["--dataset", f"parquet:{args.out / 'data'}", "--teacher-weights", args.teacher_weights]
        tvt("search", "--config", args.config, *asked, "--run-dir", run)
    refined = tvt("refine", "--run-dir", run, "--resume")
    compared = tvt("distill", "--run-dir", run, "--baselines", args.rivals, "--seeds", str(args.seeds), "--resume")
    print(json.dumps({"epochs_of_refine": refined["epochs_spent"], **compared["baselines"]}))


if __name__ == "__main__":
    main()
