"""The tables of a report as Parquet, written a batch of rows at a time."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from features.errors import SettingsError
from hazard.report.facts import ReportInfo
from hazard.report.tables import TABLES, Cell, table_columns
from hazard.types import ClipPrediction

BATCH_ROWS = 16_384
_TEXT_COLUMNS = frozenset(("path", "status", "label", "reason"))


def check_parquet() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet. Raises SettingsError where they are not installed: call it before any work."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise SettingsError(
            "tables in Parquet need pyarrow; install it with: pip install 'hazard-video[parquet]'"
        ) from None
    return pyarrow, pyarrow.parquet


@contextmanager
def open_parquet_tables(files: Mapping[str, Path], info: ReportInfo) -> Iterator[Callable[[ClipPrediction], None]]:
    """A function that writes the rows of one clip into the Parquet files, which are named by table.

    A class called like another column has ` (class)` behind its name: Parquet's readers refuse two columns of one name.
    """
    with ExitStack() as stack:
        writers = {name: stack.enter_context(_open_batch_writer(file, info, name)) for name, file in files.items()}

        def add(clip: ClipPrediction) -> None:
            for name, write in writers.items():
                for row in TABLES[name](clip, info):
                    write(row)

        yield add


@contextmanager
def _open_batch_writer(file: Path, info: ReportInfo, table: str) -> Iterator[Callable[[tuple[Cell, ...]], None]]:
    """A function that takes rows and writes them in batches."""
    pyarrow, parquet = check_parquet()
    schema = _make_schema(pyarrow, table, info)
    rows: list[tuple[Cell, ...]] = []
    with open(file, "wb") as handle, parquet.ParquetWriter(handle, schema, compression="zstd") as writer:

        def flush() -> None:
            cells = zip(*rows, strict=True) if rows else ((),) * len(schema)
            arrays = [
                pyarrow.array([_escape_surrogates(c) for c in cell], kind.type)
                for cell, kind in zip(cells, schema, strict=True)
            ]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
            rows.clear()

        def write(row: tuple[Cell, ...]) -> None:
            rows.append(row)
            if len(rows) >= BATCH_ROWS:
                flush()

        yield write
        flush()


def _make_schema(pyarrow: Any, table: str, info: ReportInfo) -> Any:
    names = table_columns(info)[table]
    own = [name for i, name in enumerate(names) if not _is_class_column(i, table, info)]
    fields = []
    for i, name in enumerate(names):
        is_class = _is_class_column(i, table, info)
        unique = f"{name} (class)" if is_class and name in own else name
        kind = pyarrow.string() if name in _TEXT_COLUMNS and not is_class else pyarrow.float64()
        fields.append((str(_escape_surrogates(unique)), kind))
    return pyarrow.schema(fields)


def _is_class_column(column: int, table: str, info: ReportInfo) -> bool:
    return table != "events" and 4 <= column < 4 + len(info.labels)


def _escape_surrogates(cell: Cell) -> Cell:
    """Names that are not UTF-8 as in the CSV files: `\\udcXX`."""
    return cell.encode("utf-8", "backslashreplace").decode() if isinstance(cell, str) else cell
