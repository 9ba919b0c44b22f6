"""The CSV tables of a report (clips, windows, events), written clip by clip."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hazard.report.facts import ReportInfo
from hazard.types import ClipPrediction

FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")  # cells that spreadsheets read as a formula (OWASP, CSV injection)
QUOTED_CHARACTERS = frozenset('",;\t\r\n')  # spreadsheets of some locales split at semicolons or tabs
EVENT_COLUMNS = ("path", "label", "start", "end", "peak", "mean")
Cell = str | float | None
"""Value of a cell; None is an empty cell."""
RowFunction = Callable[[ClipPrediction, ReportInfo], Iterator[tuple[Cell, ...]]]


def table_columns(info: ReportInfo) -> dict[str, tuple[str, ...]]:
    """Return the columns of each table."""
    return {
        "predictions": ("path", "status", "label", "probability", *info.labels, "reason"),
        "windows": ("path", "start", "end", "label", *info.labels),
        "events": EVENT_COLUMNS,
    }


def clip_rows(clip: ClipPrediction, info: ReportInfo) -> Iterator[tuple[Cell, ...]]:
    """Yield the one row of a clip."""
    probability = clip.probs[info.labels.index(clip.label)] if clip.label else None
    probs: tuple[Cell, ...] = clip.probs or (None,) * len(info.labels)
    yield (clip.path, clip.status, clip.label or None, probability, *probs, clip.reason or None)


def window_rows(clip: ClipPrediction, info: ReportInfo) -> Iterator[tuple[Cell, ...]]:
    """Yield a row for each window of a clip; none for a failed clip."""
    if clip.windows is None:
        return
    labels = window_labels(clip.windows.probs, info)
    for (start, end), label, probs in zip(clip.windows.spans, labels, clip.windows.probs, strict=True):
        yield (clip.path, float(start), float(end), label, *probs.tolist())


def event_rows(clip: ClipPrediction, info: ReportInfo) -> Iterator[tuple[Cell, ...]]:
    """Yield a row for each event of a clip."""
    for event in clip.events:
        yield (clip.path, event.label, event.start, event.end, event.peak, event.mean)


TABLES: Mapping[str, RowFunction] = {"predictions": clip_rows, "windows": window_rows, "events": event_rows}


def window_labels(probs: NDArray[np.float64], info: ReportInfo) -> list[str]:
    """Return the label of each window (B, K) alone, decided like a clip of one window."""
    best = probs.argmax(axis=1)  # (B,)
    if info.positive_label:
        positive = info.labels.index(info.positive_label)
        other = np.full_like(best, 1 - positive) if len(info.labels) == 2 else best
        best = np.where(probs[:, positive] >= info.threshold, positive, other)
    return [info.labels[i] for i in best]


@contextmanager
def open_csv_tables(files: Mapping[str, Path], info: ReportInfo) -> Iterator[Callable[[ClipPrediction], None]]:
    """Open the CSV files, named by table; give a function that writes the rows of one clip.

    Lone surrogates, from names that are not UTF-8, are written as `\\udcXX`.
    """
    with ExitStack() as stack:
        handles = {
            name: stack.enter_context(file.open("w", encoding="utf-8", errors="backslashreplace", newline=""))
            for name, file in files.items()
        }
        for name, handle in handles.items():
            handle.write(format_csv_line(table_columns(info)[name]))

        def add(clip: ClipPrediction) -> None:
            for name, handle in handles.items():
                handle.writelines(format_csv_line(map(_format_cell, row)) for row in TABLES[name](clip, info))

        yield add


def format_csv_line(cells: Iterable[str]) -> str:
    """Format one row. Cells are quoted here: the csv module leaves a lone CR and semicolons unquoted."""
    safe = map(escape_formula, cells)
    quoted = ('"' + cell.replace('"', '""') + '"' if QUOTED_CHARACTERS & set(cell) else cell for cell in safe)
    return ",".join(quoted) + "\n"


def escape_formula(cell: str) -> str:
    """Put an apostrophe before text that a spreadsheet would read as a formula; `unescape_formula` removes it."""
    return "'" + cell if cell.lstrip("'").startswith(FORMULA_STARTS) else cell


def unescape_formula(cell: str) -> str:
    """Return the text that `escape_formula` turned into `cell`."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(FORMULA_STARTS) else cell


def _format_cell(cell: Cell) -> str:
    if isinstance(cell, float):
        return f"{cell:.6f}"
    return cell or ""
