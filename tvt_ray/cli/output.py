"""What commands print: tables and text on standard output, one JSON object at its end on request."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tvt_ray.progress import say

if TYPE_CHECKING:
    from tvt_ray.vits import Space


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], note: str = "", num_texts: int = 1
) -> None:
    """The first `num_texts` columns left, the others right. Texts are shown as they are, brackets and all."""
    table = Table()
    for number, name in enumerate(columns):
        table.add_column(escape(name), justify="left" if number < num_texts else "right")
    for row in rows:
        table.add_row(*map(escape, row))
    print(title)
    Console().print(table)
    if note:
        print(note)


def print_json(args: argparse.Namespace, result: Any) -> None:
    """`result`: a dataclass or a mapping. As the last line of standard output."""
    if dataclasses.is_dataclass(result) and not isinstance(result, type):
        result = dataclasses.asdict(result)
    sys.stderr.flush()
    print(json.dumps(result), file=args.stdout, flush=True)


def print_students(students: Sequence[Any]) -> None:
    """Trained students as a table, and how to load them."""
    from tvt_ray.vits.budget import format_count

    rows = []
    for student in students:
        accuracies = [f"{value:.2f}" for value in (student.val_acc, student.test_acc, student.teacher_test_acc)]
        rows.append([student.arch_id, format_count(student.params), *accuracies])
    # Without a column for the epochs, which all students of a call share, the table fits 80 characters.
    columns = ["architecture", "params", "val %", "test %", "teacher %"]
    print_table(f"students after {students[0].epochs} epochs", columns, rows)
    for student in students:
        print(f'load it   tvt_ray.load_student("{student.path}")')


def print_archs(
    title: str,
    space: Space,
    found: Sequence[tuple[Any, float, int, int]],
    note: str = "",
    more: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Architectures as a table, from (JSON, score, parameters, FLOPs) of each; `more`: columns after those."""
    from tvt_ray.vits.budget import format_count

    columns = [space.columns(space.from_json(arch)) for arch, *_ in found]
    names = list(columns[0]) if columns else []
    more = more or {}
    rows = [
        [*cells.values(), f"{score:.3f}", format_count(params), format_count(flops), *(more[name][i] for name in more)]
        for i, (cells, (_, score, params, flops)) in enumerate(zip(columns, found, strict=True))
    ]
    print_table(title, [*names, "score", "params", "FLOPs", *more], rows, note, len(names))


def seconds_text(seconds: Mapping[str, float]) -> str:
    """What the time went into, in words."""
    return ", ".join(f"{name} {value:,.0f} s" for name, value in seconds.items())


__all__ = ["print_archs", "print_json", "print_students", "print_table", "say", "seconds_text"]
