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

if TYPE_CHECKING:
    from tvt_ray.runs.folder import Choice
    from tvt_ray.runs.run import TrainedStudent
    from tvt_ray.verbs.rivals import Rivals
    from tvt_ray.vits import Space


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], num_texts: int = 1) -> None:
    """The first `num_texts` columns left, the others right. Texts are shown as they are, brackets and all."""
    table = Table()
    for number, name in enumerate(columns):
        is_text = number < num_texts
        # A number that is cut off is another one.
        table.add_column(
            escape(name), justify="left" if is_text else "right", overflow="ellipsis" if is_text else "fold"
        )
    for row in rows:
        table.add_row(*map(escape, row))
    print(title)
    Console().print(table)


def print_json(args: argparse.Namespace, result: Any) -> None:
    """`result`: a dataclass or a mapping, which may hold dataclasses. As the last line of standard output."""
    sys.stderr.flush()
    print(json.dumps(result, default=dataclasses.asdict), file=args.stdout, flush=True)


def print_students(students: Sequence[TrainedStudent]) -> None:
    """Trained students as a table, and how to load them."""
    from tvt_ray.vits.budget import format_count

    rows = []
    for student in students:
        reached = (student.val_acc, student.test_acc, student.teacher_test_acc)
        accuracies = ["" if value is None else f"{value:.2f}" for value in reached]
        rows.append([student.arch_id, format_count(student.params), *accuracies])
    # Without a column for the epochs, which all students of a call share, the table fits 80 characters.
    columns = ["architecture", "params", "val %", "test %", "teacher %"]
    print_table(f"students after {students[0].epochs} epochs", columns, rows)
    for student in students:
        print(f'load it   tvt_ray.load_student("{student.path}")')


def print_rivals(found: Rivals) -> None:
    """The student beside what everyone has at hand, and what to take."""
    rows = []
    for each in found.rivals:
        (low, high), ahead = each.test_acc_ci95, ""
        if each.ahead is not None and each.ahead_ci95 is not None:
            ahead = f"{each.ahead:+.1f} ({each.ahead_ci95[0]:+.1f} to {each.ahead_ci95[1]:+.1f})"
        sizes = ["" if value is None else f"{value:.1f}" for value in (each.mbytes, each.ms)]
        rows.append([each.title, f"{each.test_acc:.1f} ({low:.1f} to {high:.1f})", ahead, *sizes])
    print_table(
        f"on {found.num_images:,} test images, with 95 % intervals",
        ["", "test %", "student ahead by", "MB", "ms"],
        rows,
        1,
    )
    print(f"advice    {found.advice}")


def print_archs(title: str, space: Space, found: Sequence[Choice]) -> None:
    """Architectures as a table, with latencies where they are known: as measured on this machine, else as predicted."""
    from tvt_ray.vits.budget import format_count

    columns = [space.columns(space.from_json(each.arch)) for each in found]
    names = list(columns[0]) if columns else []
    measured = [each.latency_ms for each in found if each.latency_ms is not None]
    latencies = measured or [each.predicted_latency_ms for each in found if each.predicted_latency_ms is not None]
    rows = [
        [*cells.values(), f"{each.score:.3f}", format_count(each.params), format_count(each.flops)]
        for cells, each in zip(columns, found, strict=True)
    ]
    if latencies:
        rows = [[*row, f"{ms:.3g}"] for row, ms in zip(rows, latencies, strict=True)]
    heads = [*names, "score", "params", "FLOPs", *(["ms"] if latencies else [])]
    print_table(title, heads, rows, len(names))
    if latencies:
        print("ms: latency, " + ("measured on this machine" if measured else "predicted for the profile's device"))


def seconds_text(seconds: Mapping[str, float]) -> str:
    """What the time went into, in words."""
    return ", ".join(f"{name} {value:,.0f} s" for name, value in seconds.items())
