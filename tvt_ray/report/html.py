"""Pages of one file that needs no other, and how plots look. jinja2 fills templates/, and escapes every value."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

GREY, RED, BLUE = "#9aa5b1", "#d1495b", "#00798c"
INK, INK_IN_THE_DARK = "#1f2933", "#e4e7eb"  # of text and axes


def page(template: str, **values: Any) -> bytes:
    """A template of the folder, filled with `values`, as UTF-8."""
    return _TEMPLATES.get_template(f"{template}.html").render(values).encode()


def data_uri(png: bytes) -> str:
    """A PNG file as an address, by which a picture is inside the page."""
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


def figure_png(draw: Callable[[], Figure], ink: str = INK, background: str = "white") -> bytes:
    """What `draw` makes, in this project's style, as a PNG file's content. Matplotlib's settings stay as they are."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(_style(ink, background)):
        draw().savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _style(ink: str, background: str) -> dict[str, object]:
    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    filled = ("figure.facecolor", "axes.facecolor", "savefig.facecolor")
    plain = {"figure.constrained_layout.use": True, "axes.spines.top": False, "axes.spines.right": False}
    return {**plain, "legend.frameon": False, **dict.fromkeys(inked, ink), **dict.fromkeys(filled, background)}
