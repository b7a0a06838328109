"""Training-free Vision Transformer search on tiny datasets, driven by Ray."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tvt_ray.distill.export import DistilledStudent, load_student

__version__ = "0.1.0"
__all__ = ["DistilledStudent", "__version__", "load_student"]


def __getattr__(name: str) -> Any:
    """Imports torch only when a student is asked for: `tvt --help` answers at once."""
    if name in ("DistilledStudent", "load_student"):
        from tvt_ray.distill import export

        return getattr(export, name)
    raise AttributeError(f"module 'tvt_ray' has no attribute {name!r}")
