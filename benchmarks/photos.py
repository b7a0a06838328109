"""What large photographs cost an epoch: decoded once, beside decoded in every epoch.

python benchmarks/photos.py [--num-images 1000] [--megapixels 12] [--out DIR]

Writes photographs of two classes (once), reads them as `tvt fit` does, and trains a student of its recipe's space on
them: two epochs by the cohort as a training divides this machine's cores. Then some of the photographs are loaded and
augmented from their files and from what was decoded, in turn.

Ends with one JSON object: `decode_s` (reading, checking and decoding all, once), `wait_shares` (of each epoch's time,
waiting for images), `load_share` (the same if one thread did everything), `load_ms` (of an image that was decoded),
`load_ratio` (milliseconds of one from its file over those), `images_per_s` of the last epoch, `decoded_mib`, and
`peak_mib` (by which the process grew while decoding).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from tvt_ray.data.datasets import load_dataset
from tvt_ray.data.decoded import DecodedImages
from tvt_ray.data.splits import Split
from tvt_ray.data.transforms import train_transform
from tvt_ray.distillation.cohort import Cohort, DistillInputs
from tvt_ray.distillation.learner import DistillTask, WorkerContext
from tvt_ray.distillation.pace import measure
from tvt_ray.progress import Meter
from tvt_ray.runs.config import RunConfig
from tvt_ray.stages.facts import largest_arch, own_config
from tvt_ray.stages.setup import load_data
from tvt_ray.teachers import build_teacher
from tvt_ray.training.pace import divide

CLASSES = {"warm": (200, 140, 90), "cold": (90, 140, 200)}
QUALITY = 90  # of JPEG, as cameras have it
EPOCHS = 2
MIB = 2**20


def write_photos(folder: Path, count: int, megapixels: float) -> None:
    """Smooth colour, edges and grain: as many bits a pixel as a camera's. Those that are there stay."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    width, rng = height * 4 // 3, np.random.default_rng(0)
    grain = rng.normal(0, 6, (height, width, 1)).astype(np.float32)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32), np.uint8))
    edges = np.asarray(coarse.resize((width, height), Image.Resampling.NEAREST).filter(ImageFilter.BoxBlur(2)))
    with Meter("writing photographs", count, "images") as meter:
        for number in range(count):
            name, colour = list(CLASSES.items())[number % len(CLASSES)]
            file, shift = folder / name / f"{number}.jpg", tuple(rng.integers(0, (height, width)).tolist())
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                moved = 0.4 * np.roll(edges, shift, (0, 1))[..., None] + np.roll(grain, shift, (0, 1))
                unfinished = file.with_suffix(".tmp")
                pixels = (0.6 * np.array(colour, np.float32) + moved).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(unfinished, "JPEG", quality=QUALITY)
                unfinished.replace(file)
            meter.advance(1)


def peak_mib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def load_seconds(split: Split, config: RunConfig, indices: NDArray[np.int64]) -> float:
    """Of an image, decoded where it is not yet, and augmented as in training."""
    transform, start = train_transform(config.distill.augment, config.space.image_size), time.perf_counter()
    for index in indices:
        transform(split[int(index)][0])
    return (time.perf_counter() - start) / len(indices)


def photos(args: argparse.Namespace) -> dict[str, Any]:
    folder = args.out / f"{args.num_images}x{args.megapixels:g}"
    writer = get_context("spawn").Process(target=write_photos, args=(folder, args.num_images, args.megapixels))
    writer.start()  # elsewhere, so that this process's memory is that of reading
    writer.join()
    if writer.exitcode:
        raise SystemExit(f"error: the photographs could not be written to {folder}")
    os.environ["XDG_CACHE_HOME"] = str(args.out / "cache")
    shutil.rmtree(args.out / "cache", ignore_errors=True)
    config = own_config([{"data": {"name": f"imagefolder:{folder}"}}])
    before, start = peak_mib(), time.perf_counter()
    data = load_data(config)
    decode_s, grown = time.perf_counter() - start, peak_mib() - before
    assert isinstance(data.train.source, DecodedImages)
    teacher = build_teacher(config.teacher.untrained(), data.num_classes).freeze()  # a step takes as long
    arch = largest_arch(config, data.num_classes)
    settings = config.distill.model_copy(update={"epochs": EPOCHS, "warmup_epochs": 0})
    task = DistillTask(config.space, arch, data.num_classes, settings)
    cohort = Cohort([task], DistillInputs(data.train, data.val, data.test, teacher), WorkerContext(torch.device("cpu")))
    cpus = os.cpu_count() or 1
    pace = measure(cohort, cpus)
    division = divide(cpus, pace)
    torch.set_num_threads(division.threads)
    cohort.load_with(division.loader_workers)
    waits = []
    with Meter("training", EPOCHS * len(data.train), "images") as meter:
        for _ in range(EPOCHS):
            (metrics,) = cohort.run_epoch(meter.advance).values()
            waits.append(round(metrics["data_wait_share"], 3))
    some = np.linspace(0, len(data.train) - 1, min(args.num_timed, len(data.train))).astype(np.int64)
    decoded, filed = (load_seconds(split, config, some) for split in (data.train, load_dataset(config.data).train))
    return {
        "decode_s": round(decode_s, 1),
        "wait_shares": waits,
        "load_share": round(pace.load_s / (pace.load_s + pace.step_s), 3),
        "load_ms": round(1000 * decoded, 2),
        "load_ratio": round(filed / decoded, 1),
        "images_per_s": round(metrics["images_per_s"], 1),
        "decoded_mib": round(data.train.source.pixels.nbytes / MIB, 1),
        "peak_mib": round(grown),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-images", type=int, default=1000, metavar="N")
    parser.add_argument("--megapixels", type=float, default=12, metavar="N", help="of each")
    parser.add_argument("--num-timed", type=int, default=50, metavar="N", help="photographs that are loaded both ways")
    parser.add_argument("--out", type=Path, default=Path("runs/photos"), metavar="DIR")
    print(json.dumps(photos(parser.parse_args())))


if __name__ == "__main__":
    main()
