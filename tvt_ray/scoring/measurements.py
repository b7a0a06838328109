"""The measurement: how a student of a run did after some epochs of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from tvt_ray.storage.records import Codec


@dataclass(frozen=True)
class Measurement:
    """Validation accuracy after `epochs` of a training that `recipe` names, whatever its length was to be."""

    arch_id: str
    epochs: int
    seed: int  # of the training
    val_acc: float  # percent, top-1
    seconds: float  # of training and validating these epochs
    recipe: str  # hash of the settings, the teacher and the data


SCHEMA = pa.schema(
    [
        ("arch_id", pa.string()),
        ("epochs", pa.int64()),
        ("seed", pa.int64()),
        ("val_acc", pa.float64()),
        ("seconds", pa.float64()),
        ("recipe", pa.string()),
    ]
)


def _to_table(measurements: Sequence[Measurement]) -> pa.Table:
    return pa.Table.from_pylist([dataclasses.asdict(each) for each in measurements], SCHEMA)


def _from_table(table: pa.Table) -> list[Measurement]:
    return [Measurement(**record) for record in table.select(SCHEMA.names).to_pylist()]


MEASUREMENTS = Codec(
    SCHEMA, _to_table, _from_table, key=lambda each: (each.arch_id, each.epochs, each.seed, each.recipe)
)
