"""Feature files made elsewhere (.npy, .npz, .mat): one array (N, D) of each, or why it cannot be used."""

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
"""`a.npy` may have its rows' times in seconds beside it, in `a.times.npy`."""

STAGE = "import"
SMALLEST, LARGEST = float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max)
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MATLAB_NUMBERS = frozenset(
    ("double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))
)


@dataclass(frozen=True)
class Stored:
    """One array of a file, not read yet."""

    name: str
    shape: tuple[int, ...]
    kind: str
    """What it holds, such as `float32`."""
    is_numeric: bool
    read: Callable[[], NDArray]

    def __str__(self) -> str:
        return f"{self.name or 'array'} {' x '.join(map(str, self.shape)) or 'scalar'} {self.kind}"


def find_array(file: Path, *, key: str = "") -> Stored:
    """The one 2-D array of numbers that a file holds, or the one called `key`; read when asked. Raises ClipError."""
    if not file.exists():
        raise ClipError(STAGE, "no such file or directory")
    if not file.is_file():
        raise ClipError(STAGE, "not a regular file")
    if file.suffix.lower() not in FEATURE_SUFFIXES:
        raise ClipError(STAGE, f"a '{file.suffix}' file; expected {', '.join(sorted(FEATURE_SUFFIXES))}")
    if not file.stat().st_size:
        raise ClipError(STAGE, "empty file")
    arrays = _guarded(file, lambda: list(_LISTS[file.suffix.lower()](file)))
    found = _called(arrays, key) if key and file.suffix.lower() != ".npy" else _only(arrays)
    if "object" in found.kind:
        raise ClipError(STAGE, f"{found}: pickled Python objects are never read; save an array of numbers")
    if not found.is_numeric:
        raise ClipError(STAGE, f"{found}: expected float16, float32 or float64")
    if len(found.shape) != 2:
        raise ClipError(STAGE, f"{found}: {len(found.shape)}-D, expected 2-D (rows, features)")
    if 0 in found.shape:
        raise ClipError(STAGE, f"{found}: no numbers in it")
    return found


def read_rows(file: Path, *, width: int, key: str = "", is_transposed: bool = False) -> NDArray[np.float16]:
    """The rows (N, `width`) of a file. Raises ClipError, also where float16 cannot hold its numbers."""
    stored = find_array(file, key=key)
    if (met := stored.shape[0 if is_transposed else 1]) != width:
        other = stored.shape[1 if is_transposed else 0]
        hint = f" (the other way round it has {other})" if other == width else ""
        raise ClipError(STAGE, f"{stored}: expected {width} numbers a row, got {met}{hint}")
    array = _guarded(file, stored.read)
    if array.shape != stored.shape or array.dtype.kind not in "fiu":
        raise ClipError(STAGE, f"{stored}: it holds {array.dtype} {array.shape} instead")
    return _as_float16(array.T if is_transposed else array)


def read_times(file: Path, rows: int) -> NDArray[np.float64] | None:
    """The times (`rows`,) that lie beside a file; None where there are none. Raises ClipError where they do not fit."""
    beside = file.with_suffix(TIMES_SUFFIX)
    if file.suffix.lower() != ".npy" or not beside.is_file():
        return None
    times = _guarded(beside, lambda: np.load(beside, allow_pickle=False))
    if times.shape != (rows,) or times.dtype.kind not in "fiu":
        raise ClipError(STAGE, f"{beside.name} holds {times.dtype} {times.shape}, expected {rows} times in seconds")
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ClipError(STAGE, f"{beside.name} holds times that do not ascend")
    return times.astype(np.float64)


def _guarded(file: Path, action: Callable[[], T]) -> T:
    """Whatever a damaged or forged file makes a reader raise is a ClipError."""
    try:
        return action()
    except ClipError:
        raise
    except MemoryError:
        raise ClipError(STAGE, "out of memory") from None
    except Exception as error:  # readers of damaged files raise anything
        said = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ClipError(STAGE, f"no readable {file.suffix} file ({said})") from None


def _called(arrays: Sequence[Stored], key: str) -> Stored:
    for stored in arrays:
        if stored.name == key:
            return stored
    raise ClipError(STAGE, f"no array '{key}' in it; it holds {_list(arrays)}")


def _only(arrays: Sequence[Stored]) -> Stored:
    """The array that has rows and columns; MATLAB calls a number a 1 x 1 array, so those count only where alone."""
    tables = [stored for stored in arrays if stored.is_numeric and len(stored.shape) == 2]
    for fitting in (arrays, tables, [stored for stored in tables if min(stored.shape) > 1]):
        if len(fitting) == 1:
            return fitting[0]
    if tables:
        raise ClipError(STAGE, f"several 2-D arrays ({_list(tables)}); name one with --key")
    raise ClipError(STAGE, f"no 2-D array of numbers in it; it holds {_list(arrays)}")


def _list(arrays: Sequence[Stored]) -> str:
    return ", ".join(map(str, arrays)) or "nothing"


def _as_float16(array: NDArray) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        rows = array.astype(np.float16, order="C")
    wrong = np.argwhere(~np.isfinite(rows))
    if len(wrong):
        at, value = tuple(wrong[0]), float(array[tuple(wrong[0])])
        what = f"{value:g}" if np.isfinite(value) else "NaN" if np.isnan(value) else "infinity"
        range_ = f" is beyond float16's range ({LARGEST:g}); scale the features" if np.isfinite(value) else ""
        others = f", and {len(wrong) - 1} more such" if len(wrong) > 1 else ""
        raise ClipError(STAGE, f"{what} in row {at[0]}, column {at[1]}{range_}{others}")
    largest = max(float(array.max()), -float(array.min()))
    if 0 < largest < SMALLEST:
        raise ClipError(STAGE, f"no number is larger than {largest:g}, too small for float16; scale the features")
    return rows


def _npy(file: Path) -> Iterator[Stored]:
    with open(file, "rb") as opened:
        shape, dtype = _read_header(opened)
    if not dtype.hasobject:
        np.load(file, mmap_mode="r", allow_pickle=False)  # is the file as long as it says?
    yield _stored("", shape, dtype, partial(np.load, file, allow_pickle=False))


def _npz(file: Path) -> Iterator[Stored]:
    with zipfile.ZipFile(file) as archive:
        for member in archive.namelist():
            if member.endswith(".npy"):
                with archive.open(member) as opened:
                    name = member.removesuffix(".npy")
                    yield _stored(name, *_read_header(opened), partial(_read_npz, file, name))


def _read_npz(file: Path, name: str) -> NDArray:
    with np.load(file, allow_pickle=False) as archive:
        return archive[name]


def _mat(file: Path) -> Iterator[Stored]:
    import h5py

    yield from _new_mat(file) if h5py.is_hdf5(file) else _old_mat(file)


def _old_mat(file: Path) -> Iterator[Stored]:
    """MATLAB's own format, up to version 7."""
    from scipy.io import whosmat  # type: ignore[import-untyped]

    for name, shape, kind in whosmat(file):
        yield Stored(name, tuple(shape), kind, kind in _MATLAB_NUMBERS, partial(_read_old_mat, file, name))


def _read_old_mat(file: Path, name: str) -> NDArray:
    from scipy.io import loadmat

    return np.asarray(loadmat(file, variable_names=[name])[name])


def _new_mat(file: Path) -> Iterator[Stored]:
    """Version 7.3 is HDF5, which MATLAB writes with its axes the other way round."""
    import h5py

    with h5py.File(file, "r") as h5:
        for name, item in h5.items():
            if isinstance(item, h5py.Dataset):
                is_empty = "MATLAB_empty" in item.attrs  # then it holds its shape
                shape = tuple(int(n) for n in item[()]) if is_empty else item.shape[::-1]
                kind = item.attrs.get("MATLAB_class", str(item.dtype))
                kind = kind.decode() if isinstance(kind, bytes) else str(kind)
                is_numeric = item.dtype.kind in "fiu" and kind not in ("char", "cell", "struct", "logical")
                yield Stored(name, shape, kind, is_numeric, partial(_read_new_mat, file, name))


def _read_new_mat(file: Path, name: str) -> NDArray:
    import h5py

    with h5py.File(file, "r") as h5:
        return h5[name][()].T


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"format version {version[0]}.{version[1]}")
    shape, _, dtype = _HEADERS[version](file)
    return shape, dtype


def _stored(name: str, shape: tuple[int, ...], dtype: np.dtype, read: Callable[[], NDArray]) -> Stored:
    kind = "object" if dtype.hasobject else str(dtype)
    return Stored(name, shape, kind, dtype.kind in "fiu", read)


_LISTS = {".npy": _npy, ".npz": _npz, ".mat": _mat}
