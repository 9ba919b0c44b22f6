"""Reads feature files made by other programs (.npy, .npz, .mat), one array (N, D) a file."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from numpy.typing import NDArray

from features.errors import ClipError

T = TypeVar("T")

FEATURE_SUFFIXES = frozenset((".npy", ".npz", ".mat"))
TIMES_SUFFIX = ".times.npy"
"""Suffix of the times: `a.npy` may have the times of its rows, in seconds, in `a.times.npy`."""

IMPORT_STAGE = "import"
MIN_FLOAT16, MAX_FLOAT16 = float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max)
_NPY_HEADER_READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MATLAB_NUMERIC_CLASSES = frozenset(
    ("double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
)


@dataclass(frozen=True)
class StoredArray:
    """One array of a file that has not been read yet."""

    name: str
    shape: tuple[int, ...]
    dtype_name: str
    """Type of its numbers, such as `float32`."""
    is_numeric: bool
    read: Callable[[], NDArray]

    def __str__(self) -> str:
        return f"{self.name or 'array'} {' x '.join(map(str, self.shape)) or 'scalar'} {self.dtype_name}"


def find_array(file: Path, *, key: str = "") -> StoredArray:
    """Find the only 2-D array of numbers in a file, or the array called `key`, without reading its numbers.

    Raises ClipError if there is no such array or the file cannot be read.
    """
    if not file.exists():
        raise ClipError(IMPORT_STAGE, "no such file or directory")
    if not file.is_file():
        raise ClipError(IMPORT_STAGE, "not a regular file")
    if file.suffix.lower() not in FEATURE_SUFFIXES:
        raise ClipError(
            IMPORT_STAGE, f"file type '{file.suffix}' is not supported; expected {', '.join(sorted(FEATURE_SUFFIXES))}"
        )
    if not file.stat().st_size:
        raise ClipError(IMPORT_STAGE, "empty file")
    arrays = _raise_as_clip_error(file, lambda: list(_ARRAY_LISTERS[file.suffix.lower()](file)))
    found = _find_named(arrays, key) if key and file.suffix.lower() != ".npy" else _find_only_table(arrays)
    if "object" in found.dtype_name:
        raise ClipError(IMPORT_STAGE, f"{found}: pickled Python objects are never read; save an array of numbers")
    if not found.is_numeric:
        raise ClipError(IMPORT_STAGE, f"{found}: expected float16, float32 or float64")
    if len(found.shape) != 2:
        raise ClipError(IMPORT_STAGE, f"{found}: {len(found.shape)}-D, expected 2-D (rows, features)")
    if 0 in found.shape:
        raise ClipError(IMPORT_STAGE, f"{found}: the array is empty")
    return found


def read_rows(file: Path, *, width: int, key: str = "", is_transposed: bool = False) -> NDArray[np.float16]:
    """Read the rows (N, `width`) of a file. Raises ClipError if it is unusable or its numbers do not fit float16."""
    stored = find_array(file, key=key)
    if (found := stored.shape[0 if is_transposed else 1]) != width:
        other = stored.shape[1 if is_transposed else 0]
        hint = f" (it has {other} if transposed)" if other == width else ""
        raise ClipError(IMPORT_STAGE, f"{stored}: expected {width} numbers a row, got {found}{hint}")
    array = _raise_as_clip_error(file, stored.read)
    if array.shape != stored.shape or array.dtype.kind not in "fiu":
        raise ClipError(IMPORT_STAGE, f"{stored}: reading it gave {array.dtype} {array.shape}")
    return _as_float16(array.T if is_transposed else array)


def read_times(file: Path, rows: int) -> NDArray[np.float64] | None:
    """Read the times (`rows`,) in seconds from the file beside a feature file. Return None if there is none.

    Raises ClipError if they do not match the rows.
    """
    beside = file.with_suffix(TIMES_SUFFIX)
    if file.suffix.lower() != ".npy" or not beside.is_file():
        return None
    times = _raise_as_clip_error(beside, lambda: np.load(beside, allow_pickle=False))
    if times.shape != (rows,) or times.dtype.kind not in "fiu":
        raise ClipError(
            IMPORT_STAGE, f"{beside.name} holds {times.dtype} {times.shape}, expected {rows} times in seconds"
        )
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ClipError(IMPORT_STAGE, f"{beside.name}: times must be finite and must not decrease")
    return times.astype(np.float64)


def _raise_as_clip_error(file: Path, action: Callable[[], T]) -> T:
    """Run `action` and turn any error that a damaged or forged file causes into a ClipError."""
    try:
        return action()
    except ClipError:
        raise
    except MemoryError:
        raise ClipError(IMPORT_STAGE, "out of memory") from None
    except Exception as error:  # readers of damaged files raise anything
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ClipError(IMPORT_STAGE, f"not a readable {file.suffix} file ({reason})") from None


def _find_named(arrays: Sequence[StoredArray], key: str) -> StoredArray:
    for stored in arrays:
        if stored.name == key:
            return stored
    raise ClipError(IMPORT_STAGE, f"no array is named '{key}'; the file holds {_format_arrays(arrays)}")


def _find_only_table(arrays: Sequence[StoredArray]) -> StoredArray:
    """Find the only array that has rows and columns.

    MATLAB stores a number as a 1 x 1 array, so arrays with one row or column count only if there is no other.
    """
    tables = [stored for stored in arrays if stored.is_numeric and len(stored.shape) == 2]
    for candidates in (arrays, tables, [stored for stored in tables if min(stored.shape) > 1]):
        if len(candidates) == 1:
            return candidates[0]
    if tables:
        raise ClipError(IMPORT_STAGE, f"several 2-D arrays ({_format_arrays(tables)}); choose one with --key")
    raise ClipError(IMPORT_STAGE, f"no 2-D array of numbers; the file holds {_format_arrays(arrays)}")


def _format_arrays(arrays: Sequence[StoredArray]) -> str:
    return ", ".join(map(str, arrays)) or "nothing"


def _as_float16(array: NDArray) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        rows = array.astype(np.float16, order="C")
    wrong = np.argwhere(~np.isfinite(rows))
    if len(wrong):
        position, value = tuple(wrong[0]), float(array[tuple(wrong[0])])
        shown = f"{value:g}" if np.isfinite(value) else "NaN" if np.isnan(value) else "infinity"
        range_ = f" is beyond float16's range ({MAX_FLOAT16:g}); scale the features" if np.isfinite(value) else ""
        others = f", and {len(wrong) - 1} more like it" if len(wrong) > 1 else ""
        raise ClipError(IMPORT_STAGE, f"{shown} in row {position[0]}, column {position[1]}{range_}{others}")
    largest = max(float(array.max()), -float(array.min()))
    if 0 < largest < MIN_FLOAT16:
        raise ClipError(IMPORT_STAGE, f"the largest number is {largest:g}, too small for float16; scale the features")
    return rows


def _list_npy(file: Path) -> Iterator[StoredArray]:
    with open(file, "rb") as opened:
        shape, dtype = _read_npy_header(opened)
    if not dtype.hasobject:
        np.load(file, mmap_mode="r", allow_pickle=False)  # fails if the file is shorter than its header says
    yield _make_stored_array("", shape, dtype, partial(np.load, file, allow_pickle=False))


def _list_npz(file: Path) -> Iterator[StoredArray]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            if member.endswith(".npy"):
                with archive.open(member) as opened:
                    name = member.removesuffix(".npy")
                    yield _make_stored_array(name, *_read_npy_header(opened), partial(_read_npz_array, file, name))


def _read_npz_array(file: Path, name: str) -> NDArray:
    with np.load(file, allow_pickle=False) as archive:
        return archive[name]


def _list_mat(file: Path) -> Iterator[StoredArray]:
    import h5py

    yield from _list_mat73(file) if h5py.is_hdf5(file) else _list_mat5(file)


def _list_mat5(file: Path) -> Iterator[StoredArray]:
    """List the arrays of MATLAB's own format, up to version 7."""
    from scipy.io import whosmat  # type: ignore[import-untyped]

    for name, shape, kind in whosmat(file):
        yield StoredArray(name, tuple(shape), kind, kind in _MATLAB_NUMERIC_CLASSES, partial(_read_mat5, file, name))


def _read_mat5(file: Path, name: str) -> NDArray:
    from scipy.io import loadmat

    return np.asarray(loadmat(file, variable_names=[name])[name])


def _list_mat73(file: Path) -> Iterator[StoredArray]:
    """List the arrays of version 7.3, which is HDF5 with the axes in reverse order."""
    import h5py

    with h5py.File(file, "r", locking=False) as h5:
        for name, item in h5.items():
            if isinstance(item, h5py.Dataset):
                is_empty = "MATLAB_empty" in item.attrs  # then the data set holds the shape
                shape = tuple(int(n) for n in item[()]) if is_empty else item.shape[::-1]
                kind = item.attrs.get("MATLAB_class", str(item.dtype))
                kind = kind.decode() if isinstance(kind, bytes) else str(kind)
                is_numeric = item.dtype.kind in "fiu" and kind not in ("char", "cell", "struct", "logical")
                yield StoredArray(name, shape, kind, is_numeric, partial(_read_mat73, file, name))


def _read_mat73(file: Path, name: str) -> NDArray:
    import h5py

    with h5py.File(file, "r", locking=False) as h5:
        return h5[name][()].T


def _read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in _NPY_HEADER_READERS:
        raise ValueError(f"format version {version[0]}.{version[1]}")
    shape, _, dtype = _NPY_HEADER_READERS[version](file)
    return shape, dtype


def _make_stored_array(name: str, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[], NDArray]) -> StoredArray:
    kind = "object" if dtype.hasobject else str(dtype)
    return StoredArray(name, shape, kind, dtype.kind in "fiu", read)


_ARRAY_LISTERS = {".npy": _list_npy, ".npz": _list_npz, ".mat": _list_mat}
