"""One way to show progress: a live bar in a terminal, a line now and then in a log."""

import sys
import threading

from tqdm import tqdm

LOG_INTERVAL_SECONDS = 30.0
_COUNTS_FORMAT = "{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


class ProgressBar(tqdm):
    """A bar of one process: tqdm's own lock is shared with forked ones, and one that is killed never gives it back."""

    _lock = threading.RLock()
    monitor_interval = 0  # no thread behind the bar


def make_progress_bar(total: int, *, description: str, unit: str, is_shown: bool = True) -> ProgressBar:
    """A bar of `total` steps on standard error, or none."""
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
