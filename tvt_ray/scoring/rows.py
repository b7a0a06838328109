"""The row: one architecture of a run, and all that was read of it. It holds no score: those are made on demand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from tvt_ray.errors import UsageError
from tvt_ray.scoring.faults import is_no_fault_of_the_architecture
from tvt_ray.storage.records import Codec
from tvt_ray.strict import parse_json
from tvt_ray.vits import Arch, Space

ARITHMETIC = ("params", "flops", "depth")  # readings that no student is needed for
Status = Literal["ok", "failed"]


@dataclass(frozen=True)
class Row:
    """What a run knows of an architecture. A failed one has its error, and no readings."""

    arch_id: str
    space: str
    arch: Mapping[str, Any]  # as the space's to_json gives it
    shape: str  # as the space's shape names it: what scores can tell apart
    params: int
    flops: int  # multiply-accumulates for one image
    depth: int  # transformer blocks
    status: Status
    error: str | None  # of a failed row
    seed: int  # the run's; an architecture's weights are drawn from it and arch_id
    seconds: float  # spent on this architecture
    readings: Mapping[str, float]  # by name, raw
    searcher: str = ""  # who proposed it; a run may be resumed with another
    device: str = ""  # what read it, on which last bits depend; empty where an earlier version did

    @property
    def values(self) -> dict[str, float]:
        """Everything that a score can be made of: readings, and what the architecture says of itself."""
        return {**self.readings, **{name: float(getattr(self, name)) for name in ARITHMETIC}}


def unread(space: Space, arch: Arch, num_classes: int, seed: int) -> Row:
    """What arithmetic says of an architecture: a row without readings. `seed`: the run's."""
    cost = space.cost(arch, num_classes)
    return Row(
        arch_id=space.arch_id(arch),
        space=space.name,
        arch=space.to_json(arch),
        shape=space.shape(arch),
        params=cost.params,
        flops=cost.flops,
        depth=space.num_blocks(arch),
        status="ok",
        error=None,
        seed=seed,
        seconds=0.0,
        readings={},
    )


def arch_of(row: Row, space: Space) -> Arch:
    """The architecture that a row holds. Raises UsageError where that is none of the space."""
    try:
        return space.from_json(row.arch)
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"row {row.arch_id!r} holds no architecture of the space {space.name}: {error}") from None


def verified(row: Row, space: Space) -> Row:
    """The row, where its id is that of its architecture: rows may be a stranger's, and an id becomes a path.

    Raises UsageError otherwise.
    """
    arch_id = space.arch_id(arch_of(row, space))
    if arch_id != row.arch_id:
        raise UsageError(f"row {row.arch_id!r} holds the architecture {arch_id!r}: the run folder was tampered with")
    return row


SCHEMA = pa.schema(
    [
        ("arch_id", pa.string()),
        ("space", pa.string()),
        ("arch", pa.string()),  # JSON
        ("shape", pa.string()),
        ("params", pa.int64()),
        ("flops", pa.int64()),
        ("depth", pa.int64()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("seed", pa.int64()),
        ("seconds", pa.float64()),
        ("searcher", pa.string()),
        ("device", pa.string()),
    ]
)  # and one float64 column for each reading


def rows_to_table(rows: Sequence[Row]) -> pa.Table:
    """SCHEMA, then readings by name; a reading that a row lacks is null."""
    names = sorted({name for row in rows for name in row.readings})
    schema = pa.schema([*SCHEMA, *[(name, pa.float64()) for name in names]])
    records = [
        {**{name: getattr(row, name) for name in SCHEMA.names}, "arch": json.dumps(row.arch), **row.readings}
        for row in rows
    ]
    return pa.Table.from_pylist(records, schema)


def table_to_rows(table: pa.Table) -> list[Row]:
    """The rows of a table that has SCHEMA's columns, but for those that came later."""
    rows = []
    for record in table.to_pylist():
        fields = {name: record.pop(name, None) for name in SCHEMA.names}
        fields |= {"arch": parse_json(fields["arch"]), "device": fields["device"] or ""}
        rows.append(Row(**fields, readings={k: v for k, v in record.items() if v is not None}))
    return rows


def may_be_read_again(row: Row) -> bool:
    """Of one that failed by its device: a run that is gone on with reads it once more, and the later row counts."""
    return row.status != "ok" and is_no_fault_of_the_architecture(row.error)


ROWS = Codec(
    SCHEMA,
    rows_to_table,
    table_to_rows,
    key=lambda row: row.arch_id,
    may_be_replaced=may_be_read_again,
    later=frozenset({"device"}),
)
