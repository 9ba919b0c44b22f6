"""Files that are written completely or not at all, locks, and leftovers of killed processes."""

import errno
import logging
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from filelock import lock_descriptor

from features.errors import RuntimeEnvironmentError

log = logging.getLogger(__name__)
_DISK_FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_TEMPORARY_MARK = ".tmp-"


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is complete or does not appear at all.

    It is written under a temporary name, synced and renamed; then the folder is synced. Raises RuntimeEnvironmentError.
    """
    with open_atomically(path, size_bytes=len(content)) as file:
        file.write(content)


@contextmanager
def open_atomically(path: Path, *, size_bytes: int = 0) -> Iterator[IO[bytes]]:
    """Yield a file to write and read back. It replaces `path` when the block ends without an error.

    `size_bytes` is the approximate size of the file, which the error names if the disk is full. Raises
    RuntimeEnvironmentError.
    """
    temporary = _temporary_path(path)
    try:
        with open(temporary, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)  # before the free space is measured
        raise make_write_error(error, path, size_bytes) from error
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def make_scratch_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, for a library that writes files itself.

    The folder is removed when the block ends. Raises RuntimeEnvironmentError.
    """
    folder = _temporary_path(path)
    try:
        _remove(folder)
        folder.mkdir()
    except OSError as error:
        raise make_write_error(error, path) from error
    try:
        yield folder
    finally:
        _remove(folder)


def move_into_place(file: Path, path: Path) -> None:
    """Replace `path` by a finished file on the same disk. Raises RuntimeEnvironmentError."""
    try:
        with open(file, "r+b") as written:  # Windows syncs only files that are open for writing
            os.fsync(written.fileno())
        os.replace(file, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise make_write_error(error, path) from error


def make_write_error(error: OSError, path: Path, size_bytes: int = 0) -> RuntimeEnvironmentError:
    """Return the error, in one line, that says why `path` could not be written. It needs `size_bytes`."""
    if is_disk_full(error):
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        needed = f"{size_bytes / 1e6:.1f} MB needed, " if size_bytes else ""
        return RuntimeEnvironmentError(
            f"no space to write {path} ({error.strerror}; {needed}{free / 1e6:.1f} MB free there); "
            "free some space and run the same command again; finished work is kept"
        )
    return RuntimeEnvironmentError(
        f"cannot write {path}: {error.strerror or error}; choose another place or fix its permissions"
    )


def is_disk_full(error: OSError) -> bool:
    """Return whether an error means that the disk is full."""
    return error.errno in _DISK_FULL_ERRNOS


def check_writable(path: Path) -> None:
    """Make the folder of `path` and check that files can be created in it. Raises RuntimeEnvironmentError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe = _temporary_path(path)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise make_write_error(error, path) from error


def remove_stale_temporaries(folder: Path) -> int:
    """Remove temporary files and folders whose process, on this machine, has ended. Return how many."""
    removed = 0
    for file in folder.glob(f".*{_TEMPORARY_MARK}*"):
        host, _, pid = file.name.rpartition(_TEMPORARY_MARK)[2].rpartition("-")
        if host == socket.gethostname() and pid.isdecimal() and not _is_running(int(pid)):
            _remove(file)
            removed += 1
    return removed


@contextmanager
def defer_write_errors(file: IO[bytes]) -> Iterator["_DeferredErrorFile"]:
    """Yield a file for HDF5, which cannot continue after a failed write.

    A write error is kept until the end of the block, when everything is closed, and raised then as OSError.
    """
    guard = _DeferredErrorFile(file)
    yield guard
    if guard.error:
        raise guard.error


@contextmanager
def hold_lock(path: Path, *, busy_message: str = "") -> Iterator[None]:
    """Hold an exclusive lock on `path`, a file that exists only for that. The system releases it with the process.

    Without `busy_message`, wait until the lock is free. With it, raise RuntimeEnvironmentError with this message if
    another process holds the lock. If the file system has no locks (some NFS and Lustre mounts), warn and continue.
    """
    try:
        file = open(path, "a")  # noqa: SIM115
    except OSError as error:
        raise make_write_error(error, path) from error
    with file:
        try:
            is_locked = lock_descriptor(file.fileno(), blocking=not busy_message)
        except OSError as error:
            log.warning(
                "%s: the file system has no file locks (%s); do not run two commands with this output at the same time",
                path,
                error.strerror or error,
            )
            is_locked = True
        if not is_locked:
            raise RuntimeEnvironmentError(busy_message)
        yield


def _temporary_path(path: Path) -> Path:
    return path.with_name(f".{path.name[:120]}{_TEMPORARY_MARK}{socket.gethostname()}-{os.getpid()}")


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    if sys.platform == "win32":  # os.kill would end the process
        return _is_running_on_windows(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if sys.platform == "win32":
    import _winapi

    def _is_running_on_windows(pid: int) -> bool:
        try:
            process = _winapi.OpenProcess(_winapi.SYNCHRONIZE, False, pid)
        except PermissionError:
            return True
        except OSError:
            return False
        try:
            return _winapi.WaitForSingleObject(process, 0) == _winapi.WAIT_TIMEOUT
        finally:
            _winapi.CloseHandle(process)


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows opens no folders
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _DeferredErrorFile:
    """A file that keeps its first write error and continues as if there had been none."""

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
