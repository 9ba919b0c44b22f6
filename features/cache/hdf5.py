"""Reads and writes the HDF5 cache. A part of a running job has the same layout."""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np
from numpy.typing import NDArray

from features.cache.reduction import Reduction
from features.cache.tables import CHUNK_ROWS, ClipTable, FailureTable, check_dataset_size, read_table, write_table
from features.errors import ArtifactError, DamagedCacheError, SettingsError, UserFacingError
from features.spec import SCHEMA_VERSION, FeatureSpec, parse_spec
from features.utils.files import defer_write_errors

MAX_OPEN_CACHES = 8
CHUNK_CACHE_BYTES = 32 * 2**20
RECORDED_LIBRARIES = ("torch", "torchvision", "av", "opencv-python", "h5py", "numpy")


@dataclass(frozen=True)
class CacheHeader:
    """A cache without its features."""

    spec: FeatureSpec
    reduction: Reduction | None
    reduction_fitted_on: str  # what the reduction was fitted on: train | all | model | ""
    clips: ClipTable
    failures: FailureTable
    weights_file: str  # where the weights were found: a hint for inference
    created: str
    libraries: dict[str, str]  # version by name, "" if it was not installed
    content_digest: str

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the feature settings."""
        return self.spec.fingerprint


@dataclass(frozen=True)
class Cache(CacheHeader):
    """A complete cache in memory."""

    features: NDArray[np.float16]  # (R, D)
    times: NDArray[np.float64]  # (R,)


def write_cache(
    file: IO[bytes],
    blocks: Iterable[tuple[NDArray[np.float16], NDArray[np.float64]]],
    *,
    width: int,
    spec: FeatureSpec,
    reduction: Reduction | None,
    reduction_fitted_on: str = "",
    clips: ClipTable,
    failures: FailureTable,
    weights_file: str = "",
) -> None:
    """Write a complete cache. `blocks` yields the features (n, D) and times (n,) of the rows in order, piece by piece.

    Raises ValueError if the blocks do not match the table or hold NaN or infinity, OSError if the file cannot be
    written.
    """
    with defer_write_errors(file) as safe, h5py.File(safe, "w") as h5:
        rows = int(clips.length.sum())
        hashes = _write_rows(h5, blocks, rows, width)
        write_table(h5.create_group("clips"), clips)
        write_table(h5.create_group("failures"), failures)
        if reduction:
            group = h5.create_group("reduction")
            group.attrs["kind"], group.attrs["fitted_on"] = reduction.kind, reduction_fitted_on
            for name, array in reduction.to_arrays().items():
                group.create_dataset(name, data=array, fletcher32=True, chunks=True)
        h5.attrs["schema_version"] = SCHEMA_VERSION
        h5.attrs["spec"] = spec.model_dump_json()
        h5.attrs["fingerprint"] = spec.fingerprint
        h5.attrs["weights_file"] = weights_file
        h5.attrs["created"] = datetime.now(UTC).isoformat(timespec="microseconds")
        h5.attrs["libraries"] = json.dumps({name: _library_version(name) for name in RECORDED_LIBRARIES})
        h5.attrs["content_digest"] = _compute_content_digest(spec, reduction, clips, failures, hashes)


def read_header(path: Path) -> CacheHeader:
    """Read everything but the features. Raises SettingsError if there is no file, ArtifactError if it is damaged."""
    with _open_cache(path) as h5:
        return CacheHeader(**_read_header_fields(h5))


def read_cache(path: Path) -> Cache:
    """Read a complete cache and check its content digest, its shapes and that all numbers are finite.

    Raises SettingsError if there is no file, ArtifactError if it is damaged.
    """
    with _open_cache(path) as h5:
        header = _read_header_fields(h5)
        features, times = check_dataset_size(h5["features"])[()], check_dataset_size(h5["times"])[()]
        cache = Cache(**header, features=features, times=times)
        _check_shapes(features, times, cache.clips)
        _check_finite(features)
        _check_digest(cache, (hashlib.sha256(features), hashlib.sha256(times)))
    return cache


def verify_cache(path: Path) -> CacheHeader:
    """Check a cache as `read_cache` does, in bounded memory, and return everything but the features."""
    with _open_cache(path) as h5:
        header = CacheHeader(**_read_header_fields(h5))
        features, times = check_dataset_size(h5["features"]), check_dataset_size(h5["times"])
        _check_shapes(features, times, header.clips)
        hashes = (hashlib.sha256(), hashlib.sha256())
        for start in range(0, len(times), CHUNK_ROWS):
            block = features[start : start + CHUNK_ROWS]
            _check_finite(block)
            hashes[0].update(block)
            hashes[1].update(times[start : start + CHUNK_ROWS])
        _check_digest(header, hashes)
    return header


def read_width(path: Path) -> int:
    """Return the number of features in a row."""
    with _open_cache(path) as h5:
        return h5["features"].shape[1]


class RowReader:
    """Reads rows from many caches. The most recently used files stay open, with their chunks in memory.

    Use it in a `with` block, which closes them.
    """

    def __init__(self) -> None:
        self._open_files: OrderedDict[Path, tuple[h5py.File, h5py.Dataset, h5py.Dataset]] = OrderedDict()

    def read_track(self, path: Path, track: Mapping[str, Any]) -> tuple[NDArray[np.float16], NDArray[np.float64]]:
        """Read the features (n, D) and times (n,) of one track, a row of the clip table.

        Raises SettingsError if there is no file, ArtifactError if it is damaged.
        """
        rows = slice(track["start"], track["start"] + track["length"])
        with _reject_on_error(path):
            self._open_files[path] = (
                self._open_files.pop(path) if path in self._open_files else self._open_datasets(path)
            )
            if len(self._open_files) > MAX_OPEN_CACHES:
                self._open_files.popitem(last=False)[1][0].close()
            _, features, times = self._open_files[path]
            return features[rows], times[rows]

    def _open_datasets(self, path: Path) -> tuple[h5py.File, h5py.Dataset, h5py.Dataset]:
        """Open a cache. The data sets stay open too, because HDF5 drops their chunks when they are closed."""
        h5 = h5py.File(path, "r", rdcc_nbytes=CHUNK_CACHE_BYTES, locking=False)
        return h5, check_dataset_size(h5["features"]), check_dataset_size(h5["times"])

    def __enter__(self) -> "RowReader":
        return self

    def __exit__(self, *_: object) -> None:
        for h5, _, _ in self._open_files.values():
            h5.close()


@contextmanager
def _open_cache(path: Path) -> Iterator[h5py.File]:
    with _reject_on_error(path), h5py.File(path, "r", locking=False) as file:  # some file systems have no locks
        if "schema_version" not in file.attrs:
            raise ArtifactError("this HDF5 file is not a feature cache; give another path")
        yield file


@contextmanager
def _reject_on_error(path: Path) -> Iterator[None]:
    """Turn any error inside the block into an error that names the file.

    Raises SettingsError if there is no file, ArtifactError if it is no cache, DamagedCacheError if it is damaged.
    """
    if not path.is_file():
        raise SettingsError(f"no cache at {path}; make one with: extract-features SOURCE -o {path}")
    try:
        yield
    except UserFacingError as error:
        raise type(error)(f"{path} rejected: {error}") from None
    except Exception as error:  # a damaged file can make HDF5 raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if not h5py.is_hdf5(path):
            raise ArtifactError(
                f"{path} rejected: damaged, or not a feature cache ({reason}); delete it, or give another path"
            ) from None
        raise DamagedCacheError(f"{path} rejected: damaged ({reason}); run the extraction again") from None


def _read_header_fields(h5: h5py.File) -> dict:
    if h5.attrs["schema_version"] != SCHEMA_VERSION:
        raise ArtifactError(
            f"its schema version is {h5.attrs['schema_version']}, but this program reads version {SCHEMA_VERSION}; "
            "extract the clips again to another path"
        )
    spec = parse_spec(h5.attrs["spec"])
    if spec.fingerprint != h5.attrs["fingerprint"]:
        raise DamagedCacheError("its settings do not match its fingerprint; run the extraction again")
    group = h5.get("reduction")
    reduction = None
    if group is not None:
        reduction = Reduction.from_arrays(
            group.attrs["kind"], {name: check_dataset_size(group[name])[()] for name in group}
        )
    return {
        "spec": spec,
        "reduction": reduction,
        "reduction_fitted_on": group.attrs["fitted_on"] if group is not None else "",
        "clips": ClipTable(**read_table(h5["clips"], ClipTable)),
        "failures": FailureTable(**read_table(h5["failures"], FailureTable)),
        "weights_file": h5.attrs["weights_file"],
        "created": h5.attrs["created"],
        "libraries": json.loads(h5.attrs["libraries"]),
        "content_digest": h5.attrs["content_digest"],
    }


def _check_shapes(features: NDArray | h5py.Dataset, times: NDArray | h5py.Dataset, clips: ClipTable) -> None:
    rows = int(clips.length.sum())
    if features.ndim != 2 or features.dtype != np.float16:
        raise DamagedCacheError(f"/features must be float16 (R, D), got {features.dtype} {features.shape}")
    if len(features) != rows or times.shape != (rows,):
        raise DamagedCacheError(f"expected {rows} rows, got {len(features)} features and {times.shape} times")
    if len(clips) and (clips.start != np.concatenate([[0], np.cumsum(clips.length)[:-1]])).any():
        raise DamagedCacheError("the clips' rows do not follow one another")


def _check_finite(features: NDArray[np.float16]) -> None:
    if not np.isfinite(features).all():
        raise DamagedCacheError("/features contains NaN or infinity")


def _check_digest(header: CacheHeader, hashes: tuple) -> None:
    found = _compute_content_digest(header.spec, header.reduction, header.clips, header.failures, hashes)
    if found != header.content_digest:
        raise DamagedCacheError("its content does not match its digest; run the extraction again")


def _write_rows(h5: h5py.File, blocks: Iterable, rows: int, width: int) -> tuple:
    chunk = max(1, min(rows, CHUNK_ROWS))
    features = h5.create_dataset(
        "features", (rows, width), np.float16, chunks=(chunk, max(1, width)), fletcher32=True, maxshape=(None, None)
    )
    times = h5.create_dataset("times", (rows,), np.float64, chunks=(chunk,), fletcher32=True, maxshape=(None,))
    hashes, position = (hashlib.sha256(), hashlib.sha256()), 0
    for x, seconds in blocks:
        if x.shape != (len(seconds), width) or x.dtype != np.float16 or not np.isfinite(x).all():
            raise ValueError(
                f"expected finite float16 (n, {width}) and n times, got {x.dtype} {x.shape} and {len(seconds)}"
            )
        end = position + len(x)
        features[position:end], times[position:end] = x, seconds
        hashes[0].update(np.ascontiguousarray(x).tobytes())
        hashes[1].update(np.asarray(seconds, np.float64).tobytes())
        position = end
    if position != rows:
        raise ValueError(f"expected {rows} rows, got {position}")
    return hashes


def _compute_content_digest(
    spec: FeatureSpec, reduction: Reduction | None, clips: ClipTable, failures: FailureTable, hashes: tuple
) -> str:
    """Compute the sha256 of everything that two extractions of the same clips have in common.

    It leaves out the size and modification time of files and the time of the run.
    """
    digest = hashlib.sha256(f"{spec.fingerprint} {reduction.digest if reduction else ''} ".encode())
    for table in (clips, failures):
        for field in fields(table):
            if field.name not in ("mtime_ns", "size_bytes"):
                digest.update(json.dumps([field.name, getattr(table, field.name).tolist()]).encode())
    for part in hashes:
        digest.update(part.digest())
    return digest.hexdigest()


def _library_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
