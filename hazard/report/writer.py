"""Predictions → the files of a report: tables, JSON and a page, streamed, and all of them written whole or none."""

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
"""Gives all clips anew at each call, in order of path, as they come: they are never held together."""
TABLE_FORMATS = ("csv", "parquet")


def write_report(
    folder: Path,
    clips: ClipSource,
    info: ReportInfo,
    *,
    parquet: bool = False,
    evaluation: Mapping[str, object] | None = None,
) -> ReportSummary:
    """Writes predictions.csv, windows.csv, events.csv, report.json and report.html into `folder`, made if need be.

    `clips` is called twice and no clip is held longer than it is looked at: memory does not grow with their number.
    With `parquet` the tables are there as .parquet too, without it older ones are removed. `evaluation` is what is
    known of the predictions' worth (docs/reports.md). A failed clip is written without label and probabilities,
    whatever it carries. Raises ValueError where a clip does not fit `info.labels`, before anything is written,
    EnvironmentStopped where the folder cannot be written to, and SettingsError for `parquet` without pyarrow.
    """
    if parquet:
        check_parquet()
    plan = _make_page_plan(clips, info)
    kinds = TABLE_FORMATS if parquet else TABLE_FORMATS[:1]
    names = [f"{table}.{kind}" for kind in kinds for table in TABLES]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _replace_together(folder, [*names, "report.json", "report.html"]) as files:
            _write_files(files, clips, info, plan, evaluation)
        if not parquet:
            for table in TABLES:
                (folder / f"{table}.parquet").unlink(missing_ok=True)  # of an older run: it would contradict the rest
    except OSError as error:
        if is_disk_full(error):
            raise make_write_error(error, folder / "report.html") from error
        raise RuntimeEnvironmentError(f"cannot write the report to {folder}: {error.strerror or error}") from error
    return plan.summary


def _make_page_plan(clips: ClipSource, info: ReportInfo) -> PagePlan:
    """Looks at all clips once, refuses what does not fit."""
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
        kind: {table: files[f"{table}.{kind}"] for table in TABLES if f"{table}.{kind}" in files}
        for kind in TABLE_FORMATS
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
            fit = validate_clip(clip, info)
            for write in writers:
                write(fit)


@contextmanager
def _replace_together(folder: Path, names: Sequence[str]) -> Iterator[dict[str, Path]]:
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
