"""What pages are made of: tables, pictures for light and dark, and a style for wide and narrow. Texts are escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from matplotlib.figure import Figure

from tvt_ray.report.figures import figure_png

INK_IN_THE_DARK = "#e4e7eb"  # of text and axes


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(text: object) -> str:
    """As HTML shows it."""
    return text if isinstance(text, Html) else html.escape(str(text))


def page(title: str, body: str) -> bytes:
    """One file that needs no other. `body` is HTML."""
    return _PAGE.format(style=_STYLE, title=escape(title), body=body).encode()


def facts_list(facts: Mapping[str, str]) -> str:
    """Names and what they are."""
    return f"<dl>{''.join(f'<dt>{escape(k)}</dt><dd>{escape(v)}</dd>' for k, v in facts.items())}</dl>"


def table(columns: Sequence[str], lines: Iterable[Sequence[str]], kind: str = "") -> str:
    """That scrolls by itself where it is wider than the page; the first cell of a line is its head. `kind`: a class of
    the style's.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        f"<tr><th>{escape(line[0])}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in line[1:])}</tr>"
        for line in lines
    )
    return f'<div class="scroll"><table class="{kind}"><tr>{head}</tr>{body}</table></div>'


class Drawn(NamedTuple):
    """One figure as PNG files, for a white page and for a dark one."""

    light: bytes
    dark: bytes


def drawn(draw: Callable[[], Figure]) -> Drawn:
    """What `draw` makes, with dark letters and with light ones."""
    return Drawn(figure_png(draw), figure_png(draw, INK_IN_THE_DARK, "none"))


def diagram(figure: Drawn, said: str, kind: str = "diagram") -> str:
    """As the page's scheme needs it. `said`: who cannot see it; `kind`: "wide" for two plots beside each other."""
    light, dark = (data_uri(png) for png in figure)
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img class="{kind}" alt="{escape(said)}" src="{light}"></picture>'
    )


def data_uri(png: bytes) -> str:
    """A picture inside the page."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


_STYLE = """
:root { color-scheme: light dark; --ink: #1f2933; --soft: #5b6b7b; --line: #d9dee4; --page: #fff }
@media (prefers-color-scheme: dark) {
:root { --ink: #e4e7eb; --soft: #9aa8b5; --line: #3a444e; --page: #14191e } }
* { box-sizing: border-box }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; color: var(--ink);
background: var(--page); overflow-wrap: anywhere }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1.5em } dt { color: var(--soft) } dd { margin: 0 }
.verdict { font-size: 1.15em } .scroll { overflow-x: auto }
.wide, .diagram { width: 100% } .diagram { max-width: 640px }
table { border-collapse: collapse } td, th { text-align: right; padding: .2em .6em; white-space: nowrap;
overflow-wrap: normal; border-bottom: 1px solid var(--line) } th { font-weight: normal; color: var(--soft) }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--page); color: var(--ink);
max-width: 40vw; overflow: hidden; text-overflow: ellipsis }
.confusion td { text-align: center; min-width: 2.6em }
.confusion tr:first-child th { writing-mode: vertical-rl; transform: rotate(180deg); text-align: left }
.architectures td:nth-child(2), .architectures th:nth-child(2) { text-align: left }
small, code { color: var(--soft) } code { font-size: .85em }
pre { overflow-x: auto; border: 1px solid var(--line); padding: 1em; overflow-wrap: normal }
.mistakes { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 1em }
figure { margin: 0 } figure img { width: 100%; image-rendering: pixelated }
@media (max-width: 600px) { body { margin: 1em auto } dl { grid-template-columns: 1fr } dd { margin: 0 0 .5em } }
"""

_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style><h1>{title}</h1>
{body}</html>
"""
