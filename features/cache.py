"""The HDF5 cache: its layout, written and read in one place. A part of a running job has the same layout."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO

import h5py
import numpy as np
from numpy.typing import NDArray

from features.errors import ArtefactRefused, SettingsError, UserFacingError
from features.reduction import Reduction
from features.spec import SCHEMA_VERSION, FeatureSpec
from features.types import Clip, Failure

CHUNK_ROWS = 1024
LIBRARIES = ("torch", "torchvision", "av", "opencv-python", "h5py", "numpy")


@dataclass(frozen=True)
class ClipTable:
    """One column each of a cache's tracks. Rows `start : start + length` of the features belong to a track."""

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
    """One column each of a cache's failure ledger."""

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


@dataclass(frozen=True)
class Header:
    """A cache without its features."""

    spec: FeatureSpec
    reduction: Reduction | None
    reduction_rows: str  # what the reduction was fitted on: train | all | ""
    clips: ClipTable
    failures: FailureTable
    weights_file: str  # where the weights were found, a hint for inference
    created: str
    libraries: dict[str, str]  # name: version, empty where it was not installed
    content_digest: str

    @property
    def fingerprint(self) -> str:
        """Of the spec."""
        return self.spec.fingerprint


@dataclass(frozen=True)
class Cache(Header):
    """A cache, all of it in memory."""

    features: NDArray[np.float16]  # (R, D)
    times: NDArray[np.float64]  # (R,)


def clip_table(rows: Sequence[dict[str, object]]) -> ClipTable:
    """Columns from one dict a track."""
    return ClipTable(**_columns(ClipTable, rows))


def failure_table(failures: Sequence[Failure]) -> FailureTable:
    """Columns from the ledger's entries."""
    rows = [{**vars(failure.clip), "stage": failure.stage, "reason": failure.reason} for failure in failures]
    return FailureTable(**_columns(FailureTable, rows))


def row(table: ClipTable | FailureTable, index: int) -> dict[str, object]:
    """One row as a dict of plain values."""
    return {field.name: getattr(table, field.name)[index].item() for field in fields(table)}


def row_clip(table: ClipTable | FailureTable, index: int) -> Clip:
    """One row as a Clip without a file."""
    names = ("path", "label", "group", "split", "digest", "size_bytes", "mtime_ns")
    return Clip(file=Path(), **{name: getattr(table, name)[index].item() for name in names})


def write_cache(
    file: IO[bytes],
    blocks: Iterable[tuple[NDArray[np.float16], NDArray[np.float64]]],
    *,
    width: int,
    spec: FeatureSpec,
    reduction: Reduction | None,
    reduction_rows: str = "",
    clips: ClipTable,
    failures: FailureTable,
    weights_file: str = "",
) -> None:
    """Writes a whole cache. `blocks` gives the features (n, D) and times (n,) of the rows in order, piece by piece.

    Raises ValueError where the blocks do not fit the table or hold NaN or infinity, OSError where the disk does.
    """
    guarded = _Guarded(file)
    with h5py.File(guarded, "w") as h5:
        rows = int(clips.length.sum())
        hashes = _write_rows(h5, blocks, rows, width)
        _write_table(h5.create_group("clips"), clips)
        _write_table(h5.create_group("failures"), failures)
        if reduction:
            group = h5.create_group("reduction")
            group.attrs["kind"], group.attrs["fitted_on"] = reduction.kind, reduction_rows
            for name, array in reduction.to_arrays().items():
                group.create_dataset(name, data=array, fletcher32=True, chunks=True)
        h5.attrs["schema_version"] = SCHEMA_VERSION
        h5.attrs["spec"] = spec.model_dump_json()
        h5.attrs["fingerprint"] = spec.fingerprint
        h5.attrs["weights_file"] = weights_file
        h5.attrs["created"] = datetime.now(UTC).isoformat(timespec="microseconds")
        h5.attrs["libraries"] = json.dumps({name: _version(name) for name in LIBRARIES})
        h5.attrs["content_digest"] = _content_digest(spec, reduction, clips, failures, hashes)
    if guarded.error:
        raise guarded.error


def read_header(path: Path) -> Header:
    """Everything but the features. Raises SettingsError where there is no file, ArtefactRefused where it is damaged."""
    with _open(path) as h5:
        return Header(**_header(h5))


def read_cache(path: Path) -> Cache:
    """The whole cache, its content digest, shapes and finiteness checked. Raises as `read_header` does."""
    with _open(path) as h5:
        header = _header(h5)
        features, times = h5["features"][()], h5["times"][()]
        cache = Cache(**header, features=features, times=times)
        _check_shapes(features, times, cache.clips)
        _check_finite(features)
        _check_digest(cache, (hashlib.sha256(features), hashlib.sha256(times)))
    return cache


def verify_cache(path: Path) -> Header:
    """Everything but the features, which are checked as `read_cache` checks them, in bounded memory."""
    with _open(path) as h5:
        header = Header(**_header(h5))
        features, times = h5["features"], h5["times"]
        _check_shapes(features, times, header.clips)
        hashes = (hashlib.sha256(), hashlib.sha256())
        for start in range(0, len(times), CHUNK_ROWS):
            block = features[start : start + CHUNK_ROWS]
            _check_finite(block)
            hashes[0].update(block)
            hashes[1].update(times[start : start + CHUNK_ROWS])
        _check_digest(header, hashes)
    return header


def read_rows(path: Path, start: int, length: int) -> tuple[NDArray[np.float16], NDArray[np.float64]]:
    """Features (n, D) and times (n,) of one track."""
    with _open(path) as h5:
        return h5["features"][start : start + length], h5["times"][start : start + length]


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    """Opens a cache; whatever goes wrong inside the block refuses the file by name."""
    if not path.is_file():
        raise SettingsError(f"no cache at {path}; make one with: extract-features SOURCE -o {path}")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserFacingError as error:
        raise ArtefactRefused(f"{path} refused: {error}") from None
    except Exception as error:  # a damaged file can make HDF5 raise anything; all of it means refusal
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArtefactRefused(f"{path} refused: damaged, or no cache ({said}); extract it again") from None


def _header(h5: h5py.File) -> dict:
    if h5.attrs["schema_version"] != SCHEMA_VERSION:
        raise ArtefactRefused(
            f"its schema version is {h5.attrs['schema_version']}, this program reads {SCHEMA_VERSION}"
        )
    spec = FeatureSpec.model_validate_json(h5.attrs["spec"])
    if spec.fingerprint != h5.attrs["fingerprint"]:
        raise ArtefactRefused("its settings do not match its fingerprint")
    group = h5.get("reduction")
    reduction = None
    if group is not None:
        reduction = Reduction.from_arrays(group.attrs["kind"], {name: group[name][()] for name in group})
    return {
        "spec": spec,
        "reduction": reduction,
        "reduction_rows": group.attrs["fitted_on"] if group is not None else "",
        "clips": ClipTable(**_read_table(h5["clips"], ClipTable)),
        "failures": FailureTable(**_read_table(h5["failures"], FailureTable)),
        "weights_file": h5.attrs["weights_file"],
        "created": h5.attrs["created"],
        "libraries": json.loads(h5.attrs["libraries"]),
        "content_digest": h5.attrs["content_digest"],
    }


def _check_shapes(features: NDArray | h5py.Dataset, times: NDArray | h5py.Dataset, clips: ClipTable) -> None:
    rows = int(clips.length.sum())
    if features.ndim != 2 or features.dtype != np.float16:
        raise ArtefactRefused(f"/features must be float16 (R, D), got {features.dtype} {features.shape}")
    if len(features) != rows or times.shape != (rows,):
        raise ArtefactRefused(f"expected {rows} rows, got {len(features)} features and {times.shape} times")
    if len(clips) and (clips.start != np.concatenate([[0], np.cumsum(clips.length)[:-1]])).any():
        raise ArtefactRefused("the clips' rows do not follow one another")


def _check_finite(features: NDArray[np.float16]) -> None:
    if not np.isfinite(features).all():
        raise ArtefactRefused("/features hold NaN or infinity")


def _check_digest(header: Header, hashes: tuple) -> None:
    met = _content_digest(header.spec, header.reduction, header.clips, header.failures, hashes)
    if met != header.content_digest:
        raise ArtefactRefused("its content does not match its digest; extract it again")


def _write_rows(h5: h5py.File, blocks: Iterable, rows: int, width: int) -> tuple:
    chunk = max(1, min(rows, CHUNK_ROWS))
    features = h5.create_dataset(
        "features", (rows, width), np.float16, chunks=(chunk, max(1, width)), fletcher32=True, maxshape=(None, None)
    )
    times = h5.create_dataset("times", (rows,), np.float64, chunks=(chunk,), fletcher32=True, maxshape=(None,))
    hashes, at = (hashlib.sha256(), hashlib.sha256()), 0
    for x, seconds in blocks:
        if x.shape != (len(seconds), width) or x.dtype != np.float16 or not np.isfinite(x).all():
            raise ValueError(
                f"expected finite float16 (n, {width}) and n times, got {x.dtype} {x.shape} and {len(seconds)}"
            )
        features[at : at + len(x)], times[at : at + len(x)] = x, seconds
        hashes[0].update(np.ascontiguousarray(x).tobytes())
        hashes[1].update(np.asarray(seconds, np.float64).tobytes())
        at += len(x)
    if at != rows:
        raise ValueError(f"expected {rows} rows, got {at}")
    return hashes


def _columns(kind: type, rows: Sequence[dict[str, object]]) -> dict[str, NDArray]:
    return {field.name: np.array([r[field.name] for r in rows], _dtype(field.type)) for field in fields(kind)}


def _dtype(annotation: object) -> type:
    return {NDArray[np.int64]: np.int64, NDArray[np.float64]: np.float64}.get(annotation, np.str_)  # type: ignore[call-overload]


def _write_table(group: h5py.Group, table: ClipTable | FailureTable) -> None:
    for field in fields(table):
        column = getattr(table, field.name)
        if column.dtype.kind == "U":  # of fixed length, so that the checksum covers the text itself
            encoded = np.char.encode(column, "utf-8") if len(column) else np.array([], "S1")
            column = encoded.astype(h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize)))
        chunks = (max(1, min(len(column), CHUNK_ROWS)),)
        group.create_dataset(field.name, data=column, chunks=chunks, maxshape=(None,), fletcher32=True)


def _read_table(group: h5py.Group, kind: type) -> dict[str, NDArray]:
    table: dict[str, NDArray] = {}
    for field in fields(kind):
        dataset = group[field.name]
        text = h5py.check_string_dtype(dataset.dtype) is not None
        table[field.name] = np.array(dataset.asstr()[()] if text else dataset[()], _dtype(field.type))
    if len({len(column) for column in table.values()}) > 1:
        raise ArtefactRefused(f"the columns of {group.name} differ in length")
    return table


def _content_digest(
    spec: FeatureSpec, reduction: Reduction | None, clips: ClipTable, failures: FailureTable, hashes: tuple
) -> str:
    """sha256 over all that two extractions of the same clips share: not the times of files, nor of the run."""
    digest = hashlib.sha256(f"{spec.fingerprint} {reduction.digest if reduction else ''} ".encode())
    for table in (clips, failures):
        for field in fields(table):
            if field.name not in ("mtime_ns", "size_bytes"):
                digest.update(json.dumps([field.name, getattr(table, field.name).tolist()]).encode())
    for part in hashes:
        digest.update(part.digest())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


class _Guarded:
    """A file that HDF5 writes through. HDF5 does not survive a failed write; this one keeps the error and goes on."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        if self.error is None:
            try:
                self._file.flush()
            except OSError as error:
                self.error = error

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: bytearray) -> int:
        return self._file.readinto(buffer)  # type: ignore[attr-defined]

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)
