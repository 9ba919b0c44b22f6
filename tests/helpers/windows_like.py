"""Makes this Linux process lack what Windows lacks, as far as the libraries still work. Import it before anything else.

It is not Windows: paths, consoles and the libraries' own code for Windows are not tried.
"""

import errno
import multiprocessing.context
import os
import signal
import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline")
OS_NAMES = (
    *("O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "O_NONBLOCK", "PRIO_PROCESS"),
    *(
        "chown",
        "fchmod",
        "fchown",
        "fork",
        "forkpty",
        "getegid",
        "geteuid",
        "getgid",
        "getloadavg",
        "getpgid",
        "getuid",
    ),
    *("killpg", "mkfifo", "nice", "posix_fadvise", "posix_spawn", "pread", "preadv", "pwrite", "sched_getaffinity"),
    *("sendfile", "set_blocking", "setpriority", "setsid", "statvfs", "sync", "wait"),
)
SIGNAL_NAMES = ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pthread_sigmask")


def lack_what_windows_lacks(folder: Path) -> None:
    """Block modules and names, and handle open files in `folder` as Windows does."""
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in ((os, OS_NAMES), (signal, SIGNAL_NAMES)):
        for name in names:
            vars(module).pop(name, None)
    for name in ("ForkContext", "ForkServerContext"):
        delattr(multiprocessing.context, name)
    multiprocessing.get_all_start_methods = lambda: ["spawn"]
    os.kill = _reject(os.kill, lambda pid, number: number == 0, AssertionError("os.kill(pid, 0) is Ctrl-C on Windows"))
    os.open = _reject(os.open, os.path.isdir, PermissionError(errno.EACCES, "Windows opens no folders"))
    os.fsync = _reject(os.fsync, _is_read_only, OSError(errno.EBADF, "Windows syncs no file that is open for reading"))
    in_use = PermissionError(errno.EACCES, "Windows neither replaces nor removes a file that is open")
    for name in ("replace", "rename", "unlink", "remove"):
        setattr(os, name, _reject(getattr(os, name), lambda *paths: _is_open(folder, *paths), in_use))


def _reject(function: Callable[..., Any], is_impossible: Callable[..., bool], error: Exception) -> Any:
    @wraps(function)
    def checked(*arguments: Any, **options: Any) -> Any:
        if is_impossible(*[value for value in arguments if isinstance(value, str | os.PathLike)] or arguments):
            raise error
        return function(*arguments, **options)

    return checked


def _is_read_only(descriptor: int) -> bool:
    flags = Path(f"/proc/self/fdinfo/{descriptor}").read_text().split("flags:")[1].split()[0]
    return not int(flags, 8) & (os.O_WRONLY | os.O_RDWR)


def _is_open(folder: Path, *paths: Any) -> bool:
    opened = {os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()}
    files = {os.path.realpath(path) for path in paths if Path(path).is_file()}
    return any(file in opened and Path(file).is_relative_to(folder) for file in files)
