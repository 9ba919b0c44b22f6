"""The results of each clip on disk, in an SQLite file in the report's folder.

A stopped run can continue, and no report is held in memory. The file holds probabilities, not decisions, so a report
with another threshold does not analyse any video again.
"""

import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.errors import RuntimeEnvironmentError
from hazard.types import ClipPrediction, WindowPredictions

DATABASE_NAME = "results.sqlite"
COMMIT_SECONDS = 0.5
FORMAT_VERSION = 1
_SCALAR_FIELDS = ("status", "reason", "truth", "duration", "unknown_score", "file")
_CREATE_TABLES_SQL = """
create table if not exists about (key text primary key, value text not null);
create table if not exists results (
    path blob primary key, size integer, time integer, facts text not null, windows blob, pictures blob
) without rowid;
"""


@dataclass(frozen=True)
class FileStat:
    """Size and modification time of a file, which tell whether it has changed."""

    size_bytes: int
    mtime_ns: int


class ResultStore:
    """An open store; see `open_result_store`."""

    def __init__(self, database: sqlite3.Connection, file: Path) -> None:
        self._database, self._file = database, file
        self._committed_at = time.monotonic()

    def read_file_stats(self) -> dict[str, tuple[FileStat, str]]:
        """Return the file stat and the status of every stored clip, by path."""
        with _raise_environment_errors(self._file):
            rows = self._database.execute(
                "select path, size, time, json_extract(facts, '$.status') from results"
            ).fetchall()
        return {_decode_path(path): (FileStat(size, mtime), status) for path, size, mtime, status in rows}

    def add(self, clip: ClipPrediction, file_stat: FileStat) -> None:
        """Store the result of a clip in place of an older one. It is on disk within COMMIT_SECONDS of further work."""
        with _raise_environment_errors(self._file):
            row = (_encode_path(clip.path), file_stat.size_bytes, file_stat.mtime_ns, *_pack_clip(clip))
            self._database.execute("insert or replace into results values (?, ?, ?, ?, ?, ?)", row)
            if time.monotonic() - self._committed_at > COMMIT_SECONDS:
                self.commit()

    def commit(self) -> None:
        """Write everything added so far to disk."""
        with _raise_environment_errors(self._file):
            self._database.commit()
        self._committed_at = time.monotonic()

    def __iter__(self) -> Iterator[ClipPrediction]:
        """Yield all clips in order of path. One clip is in memory at a time."""
        with _raise_environment_errors(self._file):
            rows = self._database.execute("select path, facts, windows, pictures from results order by path")
            for path, facts, windows, pictures in rows:
                yield _unpack_clip(_decode_path(path), json.loads(facts), windows, pictures)

    def write_fact(self, key: str, value: object) -> None:
        """Store a fact about the whole run, as JSON."""
        with _raise_environment_errors(self._file):
            self._database.execute("insert or replace into about values (?, ?)", (key, json.dumps(value)))
            self._database.commit()

    def read_fact(self, key: str) -> Any:
        """Return a stored fact about the whole run, or None."""
        with _raise_environment_errors(self._file):
            row = self._database.execute("select value from about where key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def clear(self) -> None:
        """Delete the results of all clips."""
        with _raise_environment_errors(self._file):
            self._database.execute("delete from results")
            self._database.commit()


@contextmanager
def open_result_store(folder: Path) -> Iterator[ResultStore]:
    """Open the store of a report's folder, and create it if it does not exist. A damaged store is replaced.

    Raises RuntimeEnvironmentError if it cannot be written or another run is writing it.
    """
    file = folder / DATABASE_NAME
    with _raise_environment_errors(file):
        folder.mkdir(parents=True, exist_ok=True)
        database = _connect(file)
    try:
        store = ResultStore(database, file)
        yield store
        store.commit()
    finally:
        with suppress(sqlite3.Error):
            database.commit()
        database.close()


def reset_if_outdated(store: ResultStore, identity: Mapping[str, object]) -> bool:
    """Delete results of another model or other windows; return whether there were any."""
    current = {"format": FORMAT_VERSION, **identity}
    stored = store.read_fact("identity")
    if stored == json.loads(json.dumps(current)):
        return False
    store.clear()
    store.write_fact("identity", current)
    return stored is not None


def _connect(file: Path) -> sqlite3.Connection:
    """Connect to the database and lock it for this run. A file that is not a database is deleted and made anew."""
    for attempt in range(2):
        database = sqlite3.connect(file, timeout=1.0)
        try:
            database.execute("pragma locking_mode = exclusive")
            database.execute("pragma journal_mode = wal")
            database.executescript(_CREATE_TABLES_SQL)
            database.execute("begin exclusive")
            database.commit()
            return database
        except sqlite3.OperationalError:
            database.close()
            raise
        except sqlite3.DatabaseError:
            database.close()
            if attempt:
                raise
            for path in (file, *(file.with_name(file.name + end) for end in ("-wal", "-shm"))):
                path.unlink(missing_ok=True)
    raise AssertionError


@contextmanager
def _raise_environment_errors(file: Path) -> Iterator[None]:
    """Raise RuntimeEnvironmentError instead of errors of SQLite and of the disk, in one line."""
    try:
        yield
    except sqlite3.Error as error:
        is_locked = "locked" in str(error)
        reason = "another run is writing to it; wait until it ends" if is_locked else f"{error}; fix the cause"
        raise RuntimeEnvironmentError(f"cannot use {file}: {reason}, then run the same command again") from error
    except OSError as error:
        raise RuntimeEnvironmentError(f"cannot write {file}: {error.strerror or error}") from error


def _encode_path(path: str) -> bytes:
    return path.encode("utf-8", "surrogatepass")


def _decode_path(key: bytes) -> str:
    return key.decode("utf-8", "surrogatepass")


def _pack_clip(clip: ClipPrediction) -> tuple[str, bytes | None, bytes]:
    facts: dict[str, object] = {name: getattr(clip, name) for name in _SCALAR_FIELDS}
    facts["file"] = clip.file.encode("utf-8", "surrogateescape").hex()
    facts["attention"] = [list(map(float, clip.attention)), list(map(float, clip.attention_times))]
    facts["thumbnails"] = [[float(t), len(jpeg)] for t, jpeg in zip(clip.thumbnail_times, clip.thumbnails, strict=True)]
    windows = None
    if clip.windows is not None:
        facts["classes"] = clip.windows.probs.shape[1]
        windows = np.hstack([clip.windows.spans, clip.windows.probs]).astype("<f8").tobytes()  # (B, 2 + K)
    return json.dumps(facts), windows, b"".join(clip.thumbnails)


def _unpack_clip(path: str, facts: dict[str, Any], windows: bytes | None, thumbnails: bytes) -> ClipPrediction:
    predictions = None
    if windows is not None:
        table = np.frombuffer(windows, "<f8").reshape(-1, 2 + facts["classes"])
        predictions = WindowPredictions(spans=table[:, :2], probs=table[:, 2:])
    ends = np.cumsum([length for _, length in facts["thumbnails"]], dtype=np.int64).tolist()
    starts = [0, *ends[:-1]]
    scalars = {name: facts[name] for name in _SCALAR_FIELDS}
    return ClipPrediction(
        path=path,
        **scalars | {"file": bytes.fromhex(facts["file"]).decode("utf-8", "surrogateescape")},
        windows=predictions,
        thumbnails=[thumbnails[a:b] for a, b in zip(starts, ends, strict=False)],
        thumbnail_times=[seconds for seconds, _ in facts["thumbnails"]],
        attention=tuple(facts["attention"][0]),
        attention_times=tuple(facts["attention"][1]),
    )
