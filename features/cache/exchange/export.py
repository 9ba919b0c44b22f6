"""Exports a cache for other programs: one .npy file a clip with a manifest, or one table of rows in Parquet."""

import csv
import hashlib
import io
import itertools
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.cache.exchange.array_files import TIMES_SUFFIX
from features.cache.hdf5 import CacheHeader, RowReader, read_width, verify_cache
from features.cache.tables import row_to_dict
from features.errors import SettingsError
from features.spec import ORIGINAL_VIEW
from features.utils.files import check_writable, make_write_error, open_atomically, write_atomically
from features.utils.progress import make_progress_bar
from features.utils.text import format_count

MANIFEST_NAME, TABLE_NAME = "manifest.csv", "features.parquet"
MANIFEST_COLUMNS = ("path", "label", "group", "split", "duration")
_MAX_NAME_BYTES = 180
"""Longest file name without suffix, in bytes of UTF-8. File systems allow 255 bytes."""
_ROW_GROUP_BYTES = 64 * 2**20
"""Approximate size of the features in one row group of a Parquet file."""


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote and what it left out."""

    target: Path
    tracks: int
    rows: int
    width: int
    views_left_out: int
    failures_left_out: int


def export_cache(
    path: Path, output: Path, *, kind: str = "npy", precision: str = "float32", with_force: bool = False
) -> ExportSummary:
    """Write the tracks of a cache under `output`. `kind` is `npy` or `parquet`; `precision` applies to Parquet only.

    Raises ArtifactError if the cache is damaged, SettingsError if `output` already holds files or if Parquet support is
    not installed.
    """
    if kind == "parquet":
        _import_pyarrow()
    _check_output(output, with_force=with_force)
    header, width = verify_cache(path), read_width(path)
    tracks: list[dict[str, Any]] = [row_to_dict(header.clips, i) for i in range(len(header.clips))]
    if kind == "npy":
        chosen = [track for track in tracks if track["view"] == ORIGINAL_VIEW]
        target = _write_npy(path, header, chosen, output)
    else:
        chosen = tracks
        target = _write_parquet(path, header, chosen, output / TABLE_NAME, width=width, precision=precision)
    return ExportSummary(
        target=target,
        tracks=len(chosen),
        rows=sum(track["length"] for track in chosen),
        width=width,
        views_left_out=len(tracks) - len(chosen),
        failures_left_out=len(header.failures),
    )


def describe_export(summary: ExportSummary) -> str:
    """Return one line for what was written and one for each kind of thing that was left out."""
    lines = [
        f"{summary.target}: {format_count(summary.tracks, 'track')}, {summary.rows} rows of {summary.width} features"
    ]
    if summary.views_left_out:
        left = format_count(summary.views_left_out, "track")
        lines.append(f"{left} of augmentation views left out; --format parquet includes them")
    if summary.failures_left_out:
        lines.append(f"{format_count(summary.failures_left_out, 'failed clip')} left out; `inspect` lists the reasons")
    return "\n".join(lines)


def make_safe_names(paths: Sequence[str], suffixes: Sequence[str]) -> dict[str, str]:
    """Map each clip path to a relative file name without suffix. Folders are kept.

    Absolute paths, `..`, hidden names, control characters and overlong names are replaced. No two names are equal, even
    if upper and lower case are not distinguished.
    """
    taken: set[str] = set()
    names = {}
    for path in paths:
        *folders, last = map(_make_safe_name, _split_path(path.removesuffix(".npy")))
        parent = "".join(f"{folder}_/" if folder.lower().endswith(".npy") else f"{folder}/" for folder in folders)
        for number in itertools.count(1):
            name = parent + (last if number == 1 else f"{last}-{number}")
            files = {unicodedata.normalize("NFC", name + suffix).casefold() for suffix in suffixes}
            if not files & taken:
                break
        taken |= files
        names[path] = name
    return names


def _split_path(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")] or ["clip"]


def _make_safe_name(part: str) -> str:
    safe = re.sub(r"[^\w .,+=@#()\[\]~!%&-]", "_", part).strip()
    safe = f"_{safe.lstrip('.')}" if safe.startswith(".") or not safe else safe
    if len(safe.encode()) <= _MAX_NAME_BYTES:
        return safe
    short = safe.encode()[: _MAX_NAME_BYTES - 13].decode(errors="ignore")
    return f"{short}-{hashlib.sha256(part.encode()).hexdigest()[:12]}"


def _check_output(output: Path, *, with_force: bool) -> None:
    if output.exists() and not output.is_dir():
        raise SettingsError(f"{output} is a file; -o expects a folder")
    if output.is_dir() and any(output.iterdir()) and not with_force:
        raise SettingsError(f"{output} is not empty; use --force to write into it and replace files of the same name")
    check_writable(output / MANIFEST_NAME)


def _write_npy(path: Path, header: CacheHeader, tracks: Sequence[dict[str, Any]], output: Path) -> Path:
    """Write one file for each track, and the manifest last: a folder without one is an unfinished export."""
    names = make_safe_names([track["path"] for track in tracks], [".npy", TIMES_SUFFIX])
    (output / MANIFEST_NAME).unlink(missing_ok=True)
    text = io.StringIO()
    table = csv.DictWriter(text, MANIFEST_COLUMNS)
    table.writeheader()
    for track, features, times in _read_tracks(path, tracks):
        file = output / names[track["path"]]
        _save_array(file.with_name(file.name + ".npy"), features)
        _save_array(file.with_name(file.name + TIMES_SUFFIX), times)
        columns = {name: track[name] for name in MANIFEST_COLUMNS}
        table.writerow(columns | {"path": names[track["path"]] + ".npy", "duration": repr(track["duration"])})
    write_atomically(output / MANIFEST_NAME, text.getvalue().encode())
    return output / MANIFEST_NAME


def _save_array(file: Path, array: NDArray) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "wb") as opened:
            np.save(opened, array, allow_pickle=False)
    except OSError as error:
        raise make_write_error(error, file, array.nbytes) from None


def _write_parquet(
    path: Path, header: CacheHeader, tracks: Sequence[dict[str, Any]], target: Path, *, width: int, precision: str
) -> Path:
    arrow, parquet = _import_pyarrow()
    facts = {"spec": header.spec.model_dump_json(), "fingerprint": header.fingerprint}
    number = {"float16": arrow.float16(), "float32": arrow.float32()}[precision]
    texts = ("path", "label", "group", "split", "view")
    schema = arrow.schema(
        [
            *((name, arrow.string()) for name in texts),
            ("time", arrow.float64()),
            ("features", arrow.list_(number, width)),
        ],
        metadata=facts,
    )
    size_bytes = sum(track["length"] for track in tracks) * width * np.dtype(precision).itemsize
    with (
        open_atomically(target, size_bytes=size_bytes) as file,
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        for group in _group_tracks(_read_tracks(path, tracks)):
            columns: dict[str, Any] = {
                name: [track[name] for track, _, times in group for _ in times] for name in texts
            }
            columns["time"] = np.concatenate([times for _, _, times in group])
            flat = np.concatenate([features for _, features, _ in group]).astype(precision).ravel()
            columns["features"] = arrow.FixedSizeListArray.from_arrays(arrow.array(flat, number), width)
            writer.write_table(arrow.table(columns, schema=schema))
    return target


_TrackRows = tuple[dict[str, Any], NDArray[np.float16], NDArray[np.float64]]


def _group_tracks(tracks: Iterator[_TrackRows]) -> Iterator[list[_TrackRows]]:
    group: list[_TrackRows] = []
    for track in tracks:
        group.append(track)
        if sum(features.nbytes for _, features, _ in group) >= _ROW_GROUP_BYTES:
            yield group
            group = []
    if group:
        yield group


def _read_tracks(path: Path, tracks: Sequence[dict[str, Any]]) -> Iterator[_TrackRows]:
    with RowReader() as reader, make_progress_bar(len(tracks), description="export", unit="track") as bar:
        for track in tracks:
            yield track, *reader.read_track(path, track)
            bar.update()


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise SettingsError("--format parquet needs pyarrow; install it with: pip install pyarrow") from None
    return pyarrow, pyarrow.parquet
