"""Files that are written whole or not at all."""

import errno
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from features.errors import EnvironmentStopped

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY = ".tmp-"


def write_atomically(path: Path, content: bytes) -> None:
    """Temporary name, fsync, rename, fsync of the folder. Raises EnvironmentStopped; nothing half-written is left."""
    with atomic_file(path, size_bytes=len(content)) as file:
        file.write(content)


@contextmanager
def atomic_file(path: Path, *, size_bytes: int = 0) -> Iterator[IO[bytes]]:
    """A file to write and read back that takes the place of `path` when the block ends without an error.

    `size_bytes` is what it will need, about: it is said where the disk is full.
    """
    temporary = _temporary(path)
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)  # before the free space is measured
        raise stopped(error, path, size_bytes) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` for a program that insists on writing files itself; it is gone when the block ends."""
    folder = _temporary(path)
    try:
        _remove(folder)
        folder.mkdir()
    except OSError as error:
        raise stopped(error, path) from error
    try:
        yield folder
    finally:
        _remove(folder)


def move_whole(file: Path, path: Path) -> None:
    """A finished file takes the place of `path`, on the same disk. Raises EnvironmentStopped."""
    try:
        with open(file, "rb") as written:
            os.fsync(written.fileno())
        os.replace(file, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise stopped(error, path) from error


def stopped(error: OSError, path: Path, size_bytes: int = 0) -> EnvironmentStopped:
    """The one line that says why the machine would not write `path`, which needs `size_bytes`."""
    if is_full(error):
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        needed = f"{size_bytes / 1e6:.1f} MB needed, " if size_bytes else ""
        return EnvironmentStopped(
            f"no space to write {path} ({error.strerror}; {needed}{free / 1e6:.1f} MB free there); "
            "free some space and run the same command again, finished work is kept"
        )
    return EnvironmentStopped(
        f"cannot write {path}: {error.strerror or error}; choose another place or mend its permissions"
    )


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no more space."""
    return error.errno in _FULL


def check_writable(path: Path) -> None:
    """Makes the folder of `path` and proves that files can be made there. Raises EnvironmentStopped."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = _temporary(path)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise stopped(error, path) from error


def sweep_temporary(folder: Path) -> int:
    """Removes temporary files and folders whose writer, a process of this machine, is gone. Returns how many."""
    swept = 0
    for file in folder.glob(f".*{_TEMPORARY}*"):
        host, _, pid = file.name.rpartition(_TEMPORARY)[2].rpartition("-")
        if host == socket.gethostname() and pid.isdecimal() and not _runs(int(pid)):
            _remove(file)
            swept += 1
    return swept


@contextmanager
def guarded(file: IO[bytes]) -> Iterator["_Guarded"]:
    """A file for HDF5, which does not survive a failed write: the OSError comes when all is closed."""
    guard = _Guarded(file)
    yield guard
    if guard.error:
        raise guard.error


@contextmanager
def locked(path: Path, *, or_say: str = "") -> Iterator[None]:
    """Holds an exclusive lock on `path`, a file made for that.

    Waits for whoever holds it, or, with something to say, raises EnvironmentStopped that says it.
    """
    try:
        file = open(path, "a")  # noqa: SIM115
    except OSError as error:
        raise stopped(error, path) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if or_say else 0))
        except BlockingIOError:
            raise EnvironmentStopped(or_say) from None
        yield


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name[:120]}{_TEMPORARY}{socket.gethostname()}-{os.getpid()}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Guarded:
    """Keeps the first error and goes on as if there were none."""

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
