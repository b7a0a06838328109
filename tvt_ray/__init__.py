"""Training-free Vision Transformer search on tiny datasets, driven by Ray.

run = tvt_ray.search("configs/digits.yaml", run_dir="runs/first")   # a Run: a table that verbs add to
run.ranking(by="tvt", k=5, max_params=1_000_000)                    # any score, without scoring again
tvt_ray.refine(run, num_students=16)                                # trains a few shortly, ranks all by those
students = tvt_ray.distill(run, top_k=2)                            # trained students
students[0].load().predict([image])
tvt_ray.compare(run, num_seeds=3, resume=True).verdict              # does it beat what people designed?
tvt_ray.evaluate(students[0], "imagefolder:others").quality         # how good it is, on any data with its classes
tvt_ray.export(students[0], "onnx", int8=True)                      # files that run without this package
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tvt_ray.errors import RunError, UsageError
from tvt_ray.version import __version__

if TYPE_CHECKING:
    from tvt_ray.exports.folder import DistilledStudent, load_student
    from tvt_ray.runs.config import RunConfig, load_config
    from tvt_ray.runs.run import Run
    from tvt_ray.verbs.compare import compare
    from tvt_ray.verbs.distill import distill
    from tvt_ray.verbs.evaluate import evaluate
    from tvt_ray.verbs.export import export
    from tvt_ray.verbs.fit import fit
    from tvt_ray.verbs.refine import refine
    from tvt_ray.verbs.search import search
    from tvt_ray.verbs.session import Session

__all__ = [
    "DistilledStudent",
    "Run",
    "RunConfig",
    "RunError",
    "Session",
    "UsageError",
    "__version__",
    "compare",
    "distill",
    "evaluate",
    "export",
    "fit",
    "load_config",
    "load_student",
    "refine",
    "search",
]

_VERBS = ("search", "refine", "distill", "compare", "evaluate", "export", "fit")
_MODULES = {
    "DistilledStudent": "exports.folder",
    "load_student": "exports.folder",
    "RunConfig": "runs.config",
    "load_config": "runs.config",
    "Run": "runs.run",
    "Session": "verbs.session",
    **{verb: f"verbs.{verb}" for verb in _VERBS},
}


def __getattr__(name: str) -> Any:
    """Imports torch and Ray only when something is asked for: `tvt --help` answers at once."""
    if name not in _MODULES:
        raise AttributeError(f"module 'tvt_ray' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"tvt_ray.{_MODULES[name]}"), name)
