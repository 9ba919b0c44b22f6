"""One way to show progress: a live bar in a terminal, a line now and then in a log."""

import sys
from typing import Never

from tqdm import tqdm

LOG_SECONDS = 30.0
_FACTS = "{n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"


def progress_bar(total: int, *, what: str, unit: str) -> "tqdm[Never]":
    """A bar of `total` steps on standard error."""
    live = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        smoothing=0.05,
        dynamic_ncols=live,
        mininterval=0.1 if live else LOG_SECONDS,
        bar_format=("{l_bar}{bar}| " + _FACTS) if live else "{desc}: " + _FACTS + "\n",
    )
