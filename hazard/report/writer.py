"""Predictions → the files of a report: tables, JSON and a page, streamed, and all of them written whole or none."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from features.errors import EnvironmentStopped
from features.utils.files import is_full, stopped
from hazard.report.facts import ReportInfo, Summary, checked
from hazard.report.json_report import json_report
from hazard.report.page import html_page
from hazard.report.page_plan import PagePlan, Planner
from hazard.report.parquet import check_parquet, parquet_tables
from hazard.report.tables import TABLES, csv_tables
from hazard.types import ClipPrediction

Clips = Callable[[], Iterable[ClipPrediction]]
"""Gives all clips anew at each call, in order of path, as they come: they are never held together."""
KINDS = ("csv", "parquet")


def write_report(
    folder: Path,
    clips: Clips,
    info: ReportInfo,
    *,
    parquet: bool = False,
    evaluation: Mapping[str, object] | None = None,
) -> Summary:
    """Writes predictions.csv, windows.csv, events.csv, report.json and report.html into `folder`, made if need be.

    `clips` is called twice and no clip is held longer than it is looked at: memory does not grow with their number.
    With `parquet` the tables are there as .parquet too, without it older ones are removed. `evaluation` is what is
    known of the predictions' worth (docs/reports.md). A failed clip is written without label and probabilities,
    whatever it carries. Raises ValueError where a clip does not fit `info.labels`, before anything is written,
    EnvironmentStopped where the folder cannot be written to, and SettingsError for `parquet` without pyarrow.
    """
    if parquet:
        check_parquet()
    plan = _plan(clips, info)
    kinds = KINDS if parquet else KINDS[:1]
    names = [f"{table}.{kind}" for kind in kinds for table in TABLES]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _replacing(folder, [*names, "report.json", "report.html"]) as files:
            _write(files, clips, info, plan, evaluation)
        if not parquet:
            for table in TABLES:
                (folder / f"{table}.parquet").unlink(missing_ok=True)  # of an older run: it would contradict the rest
    except OSError as error:
        if is_full(error):
            raise stopped(error, folder / "report.html") from error
        raise EnvironmentStopped(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return plan.summary


def _plan(clips: Clips, info: ReportInfo) -> PagePlan:
    """Looks at all clips once, refuses what does not fit."""
    planner = Planner(info)
    for clip in clips():
        planner.add(checked(clip, info))
    return planner.plan


def _write(
    files: Mapping[str, Path], clips: Clips, info: ReportInfo, plan: PagePlan, evaluation: Mapping[str, object] | None
) -> None:
    tables = {
        kind: {table: files[f"{table}.{kind}"] for table in TABLES if f"{table}.{kind}" in files} for kind in KINDS
    }
    with ExitStack() as stack:
        writers = [
            stack.enter_context(writer)
            for writer in (
                csv_tables(tables["csv"], info),
                parquet_tables(tables["parquet"], info),
                json_report(files["report.json"], info, plan.summary, evaluation),
                html_page(files["report.html"], info, plan, evaluation),
            )
        ]
        for clip in clips():
            fit = checked(clip, info)
            for write in writers:
                write(fit)


@contextmanager
def _replacing(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Files to write, by name, that take their names together once all are complete; on any error none does."""
    files = {name: folder / f".{name}.{os.getpid()}.tmp" for name in names}
    try:
        yield files
        for file in files.values():
            with open(file, "rb") as written:
                os.fsync(written.fileno())
        for name, file in files.items():
            os.replace(file, folder / name)
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)
