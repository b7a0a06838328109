"""Pages of one file that needs no other. Their texts and style are in templates/, and jinja2 escapes every value."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from tvt_ray.report.figures import figure_png

INK_IN_THE_DARK = "#e4e7eb"  # of text and axes


def page(template: str, **values: Any) -> bytes:
    """A template of the folder, filled with `values`, as UTF-8."""
    return _TEMPLATES.get_template(f"{template}.html").render(values).encode()


def data_uri(png: bytes) -> str:
    """A picture inside the page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


_TEMPLATES = Environment(
    loader=PackageLoader("tvt_ray.report"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters["data_uri"] = data_uri


class Drawn(NamedTuple):
    """One figure as PNG files, for a white page and for a dark one."""

    light: bytes
    dark: bytes


def drawn(draw: Callable[[], Figure]) -> Drawn:
    """What `draw` makes, with dark letters and with light ones."""
    return Drawn(figure_png(draw), figure_png(draw, INK_IN_THE_DARK, "none"))
