"""Progress bars: a live bar in a terminal, a line now and then in a log."""

import sys
import threading

from tqdm import tqdm

LOG_INTERVAL_SECONDS = 30.0
_COUNTS_FORMAT = "{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


class ProgressBar(tqdm):
    """A bar of one process.

    tqdm shares its lock with forked processes, and a process that is killed never releases it. This class has its own
    lock.
    """

    _lock = threading.RLock()
    monitor_interval = 0  # no thread behind the bar


def make_progress_bar(total: int, *, description: str, unit: str, is_shown: bool = True) -> ProgressBar:
    """Return a bar of `total` steps on standard error; it prints nothing if `is_shown` is False."""
    live = sys.stderr.isatty()
    return ProgressBar(
        total=total,
        desc=description,
        disable=not is_shown,
        unit=unit,
        smoothing=0.05,
        position=0,  # one at a time, in a log too
        dynamic_ncols=live,
        miniters=1,
        mininterval=0.1 if live else LOG_INTERVAL_SECONDS,
        bar_format=("{l_bar}{bar}| " + _COUNTS_FORMAT) if live else "{desc}: " + _COUNTS_FORMAT + "\n",
    )
