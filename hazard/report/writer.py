"""Predictions → the files of a report: tables, JSON and page. Clips are streamed; the files appear together."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from features.errors import RuntimeEnvironmentError
from features.utils.files import is_disk_full, make_write_error
from hazard.report.facts import ReportInfo, ReportSummary, validate_clip
from hazard.report.json_report import open_json_report
from hazard.report.page import open_html_page
from hazard.report.page_plan import PagePlan, PagePlanner
from hazard.report.parquet import check_parquet, open_parquet_tables
from hazard.report.tables import TABLES, open_csv_tables
from hazard.types import ClipPrediction

ClipSource = Callable[[], Iterable[ClipPrediction]]
"""Each call iterates over all clips anew, in order of path; they are never in memory together."""
TABLE_FORMATS = ("csv", "parquet")


def write_report(
    folder: Path,
    clips: ClipSource,
    info: ReportInfo,
    *,
    parquet: bool = False,
    evaluation: Mapping[str, object] | None = None,
) -> ReportSummary:
    """Write predictions.csv, windows.csv, events.csv, report.json and report.html into `folder`, created if missing.

    `clips` is called twice, and one clip is in memory at a time. With `parquet` the tables are also written as
    .parquet; without it older ones are deleted. `evaluation` is the result of `evaluate_predictions`, if any truth is
    known (docs/reports.md). A failed clip is always written without label and probabilities. Raises ValueError, before
    anything is written, if a clip does not fit `info.labels`; RuntimeEnvironmentError if the folder cannot be written;
    and SettingsError for `parquet` without pyarrow.
    """
    if parquet:
        check_parquet()
    plan = _make_page_plan(clips, info)
    formats = TABLE_FORMATS if parquet else TABLE_FORMATS[:1]
    names = [f"{table}.{suffix}" for suffix in formats for table in TABLES]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _replace_together(folder, [*names, "report.json", "report.html"]) as files:
            _write_files(files, clips, info, plan, evaluation)
        if not parquet:
            for table in TABLES:
                (folder / f"{table}.parquet").unlink(
                    missing_ok=True
                )  # of an older run, it would contradict the new files
    except OSError as error:
        if is_disk_full(error):
            raise make_write_error(error, folder / "report.html") from error
        raise RuntimeEnvironmentError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return plan.summary


def _make_page_plan(clips: ClipSource, info: ReportInfo) -> PagePlan:
    """Read all clips once and plan the page. Raises ValueError for a clip that does not fit the labels."""
    planner = PagePlanner(info)
    for clip in clips():
        planner.add(validate_clip(clip, info))
    return planner.plan


def _write_files(
    files: Mapping[str, Path],
    clips: ClipSource,
    info: ReportInfo,
    plan: PagePlan,
    evaluation: Mapping[str, object] | None,
) -> None:
    tables = {
        suffix: {table: files[f"{table}.{suffix}"] for table in TABLES if f"{table}.{suffix}" in files}
        for suffix in TABLE_FORMATS
    }
    with ExitStack() as stack:
        writers = [
            stack.enter_context(writer)
            for writer in (
                open_csv_tables(tables["csv"], info),
                open_parquet_tables(tables["parquet"], info),
                open_json_report(files["report.json"], info, plan.summary, evaluation),
                open_html_page(files["report.html"], info, plan, evaluation),
            )
        ]
        for clip in clips():
            valid_clip = validate_clip(clip, info)
            for write in writers:
                write(valid_clip)


@contextmanager
def _replace_together(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Give temporary files by name. They replace the real files together at the end; on any error none does."""
    files = {name: folder / f".{name}.{os.getpid()}.tmp" for name in names}
    try:
        yield files
        for file in files.values():
            with open(file, "r+b") as written:  # Windows syncs only files that are open for writing
                os.fsync(written.fileno())
        for name, file in files.items():
            os.replace(file, folder / name)
    finally:
        for file in files.values():
            file.unlink(missing_ok=True)
