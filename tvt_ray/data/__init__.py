"""Datasets, their splits, the tensors that networks see, and the fixed probe batch."""

from tvt_ray.data.datasets import DATASETS, DataSettings, load_dataset
from tvt_ray.data.probe import ProbeImages, ProbeSettings, build_probe_images
from tvt_ray.data.splits import Dataset, Split

__all__ = [
    "DATASETS",
    "DataSettings",
    "Dataset",
    "ProbeImages",
    "ProbeSettings",
    "Split",
    "build_probe_images",
    "load_dataset",
]
