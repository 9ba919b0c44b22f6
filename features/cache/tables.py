"""The two tables of a cache, tracks and failures: one array a column, in memory and in HDF5."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from features.errors import DamagedCacheError
from features.types import Clip, Failure

CHUNK_ROWS = 1024


@dataclass(frozen=True)
class ClipTable:
    """The tracks of a cache, one array a column. Rows `start : start + length` of the features belong to a track."""

    path: NDArray[np.str_]
    label: NDArray[np.str_]
    group: NDArray[np.str_]
    split: NDArray[np.str_]
    view: NDArray[np.str_]
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    duration: NDArray[np.float64]  # seconds
    digest: NDArray[np.str_]
    status: NDArray[np.str_]  # ok | partial
    decoded_share: NDArray[np.float64]
    size_bytes: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.path)


@dataclass(frozen=True)
class FailureTable:
    """The failed clips of a cache, one array a column."""

    path: NDArray[np.str_]
    label: NDArray[np.str_]
    group: NDArray[np.str_]
    split: NDArray[np.str_]
    stage: NDArray[np.str_]
    reason: NDArray[np.str_]
    digest: NDArray[np.str_]
    size_bytes: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.path)


def make_clip_table(rows: Sequence[dict[str, object]]) -> ClipTable:
    """Build the table from one dict a track. The tracks are stored back to back in this order."""
    ends = np.cumsum([0, *(r["length"] for r in rows)])
    return ClipTable(
        **_make_columns(ClipTable, [r | {"start": int(start)} for r, start in zip(rows, ends, strict=False)])
    )


def make_failure_table(failures: Sequence[Failure]) -> FailureTable:
    """Build the table from failures."""
    rows = [{**vars(failure.clip), "stage": failure.stage, "reason": failure.reason} for failure in failures]
    return FailureTable(**_make_columns(FailureTable, rows))


def row_to_dict(table: ClipTable | FailureTable, index: int) -> dict[str, object]:
    """Return one row as a dict of plain Python values."""
    return {field.name: getattr(table, field.name)[index].item() for field in fields(table)}


def row_to_clip(table: ClipTable | FailureTable, index: int) -> Clip:
    """Return one row as a Clip whose `file` is empty."""
    names = ("path", "label", "group", "split", "digest", "size_bytes", "mtime_ns")
    return Clip(file=Path(), **{name: getattr(table, name)[index].item() for name in names})


def row_to_failure(table: FailureTable, index: int) -> Failure:
    """Return one row as a Failure whose clip has no file."""
    return Failure(row_to_clip(table, index), str(table.stage[index]), str(table.reason[index]))


def write_table(group: h5py.Group, table: ClipTable | FailureTable) -> None:
    """Write each column as a data set with a checksum."""
    for field in fields(table):
        column = getattr(table, field.name)
        if column.dtype.kind == "U":  # fixed length, so that the checksum covers the text itself
            encoded = np.char.encode(column, "utf-8") if len(column) else np.array([], "S1")
            column = encoded.astype(h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize)))
        chunks = (max(1, min(len(column), CHUNK_ROWS)),)
        group.create_dataset(field.name, data=column, chunks=chunks, maxshape=(None,), fletcher32=True)


def read_table(group: h5py.Group, table_class: type) -> dict[str, NDArray]:
    """Read the columns of `table_class`. Raises DamagedCacheError if they differ in length."""
    table: dict[str, NDArray] = {}
    for field in fields(table_class):
        dataset = check_dataset_size(group[field.name])
        text = h5py.check_string_dtype(dataset.dtype) is not None
        table[field.name] = np.array(dataset.asstr()[()] if text else dataset[()], _column_dtype(field.type))
    if len({len(column) for column in table.values()}) > 1:
        raise DamagedCacheError(f"the columns of {group.name} differ in length")
    return table


def check_dataset_size(dataset: h5py.Dataset) -> h5py.Dataset:
    """Return the data set itself. Raises DamagedCacheError if its shape needs more bytes than the file has.

    Nothing in a cache is compressed. Without this check HDF5 would allocate memory for any shape that a flipped bit
    makes.
    """
    file_bytes, count = dataset.file.id.get_filesize(), math.prod(dataset.shape or ())
    if max(count, math.prod(dataset.chunks or ()) if count else 0) * dataset.dtype.itemsize > file_bytes:
        raise DamagedCacheError(
            f"{dataset.name} cannot be {dataset.shape} in a file of {file_bytes} bytes; run the extraction again"
        )
    return dataset


def _make_columns(table_class: type, rows: Sequence[dict[str, object]]) -> dict[str, NDArray]:
    return {
        field.name: np.array([r[field.name] for r in rows], _column_dtype(field.type)) for field in fields(table_class)
    }


def _column_dtype(annotation: object) -> type:
    return {NDArray[np.int64]: np.int64, NDArray[np.float64]: np.float64}.get(annotation, np.str_)  # type: ignore[call-overload]
