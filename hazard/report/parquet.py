"""The tables of a report as Parquet, written in batches of rows."""

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
    """Import and return pyarrow and pyarrow.parquet. Raises SettingsError if missing, so call it before any work."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise SettingsError("Parquet tables need pyarrow; install it with: pip install pyarrow") from None
    return pyarrow, pyarrow.parquet


@contextmanager
def open_parquet_tables(files: Mapping[str, Path], info: ReportInfo) -> Iterator[Callable[[ClipPrediction], None]]:
    """Open the Parquet files, named by table; give a function that writes the rows of one clip.

    A class with the name of another column gets ` (class)` appended, because readers reject duplicate column names.
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
    """Open a Parquet file; give a function that takes rows, which are written in batches."""
    pyarrow, parquet = check_parquet()
    schema = _make_schema(pyarrow, table, info)
    rows: list[tuple[Cell, ...]] = []
    with open(file, "wb") as handle, parquet.ParquetWriter(handle, schema, compression="zstd") as writer:

        def flush() -> None:
            columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
            arrays = [
                pyarrow.array([_escape_surrogates(cell) for cell in column], field.type)
                for column, field in zip(columns, schema, strict=True)
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
    other_columns = [name for i, name in enumerate(names) if not _is_class_column(i, table, info)]
    fields = []
    for i, name in enumerate(names):
        is_class = _is_class_column(i, table, info)
        unique = f"{name} (class)" if is_class and name in other_columns else name
        data_type = pyarrow.string() if name in _TEXT_COLUMNS and not is_class else pyarrow.float64()
        fields.append((str(_escape_surrogates(unique)), data_type))
    return pyarrow.schema(fields)


def _is_class_column(column: int, table: str, info: ReportInfo) -> bool:
    return table != "events" and 4 <= column < 4 + len(info.labels)


def _escape_surrogates(cell: Cell) -> Cell:
    """Replace lone surrogates, from names that are not UTF-8, by `\\udcXX`, as in the CSV files."""
    return cell.encode("utf-8", "backslashreplace").decode() if isinstance(cell, str) else cell
