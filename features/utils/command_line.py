"""How all commands run: errors as one line, the right exit code, and a clean stop on signals."""

import io
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import click

from features import __version__
from features.errors import UserFacingError
from features.utils.missing_libraries import explain_missing_libraries

EXIT_OK, EXIT_USAGE, EXIT_FAILED_ITEMS = 0, 2, 3
EXIT_INTERRUPTED = 128 + signal.SIGINT
version_option = click.version_option(__version__, message="%(prog)s %(version)s")
"""The option `--version` of every program."""
_log = logging.getLogger(__name__)


def run_command(command: click.Command, arguments: list[str] | None = None) -> None:
    """Run a click command as a program and exit with its code. Print one line for an error that a user can cause."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a pipe on Windows cannot hold every letter
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    try:
        with explain_missing_libraries():
            code = command.main(arguments, standalone_mode=False)
        sys.exit(code or EXIT_OK)
    except click.exceptions.Abort:
        sys.exit(EXIT_INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UserFacingError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        sys.exit(EXIT_OK)


class StopFlag:
    """Whether a signal asked the program to stop, and which one."""

    def __init__(self) -> None:
        self.signal_number = 0

    def __bool__(self) -> bool:
        return bool(self.signal_number)

    @property
    def exit_code(self) -> int:
        """143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signal_number


@contextmanager
def stop_on_signals(announce: Callable[[str], None]) -> Iterator[StopFlag]:
    """Yield a flag that SIGTERM or the first Ctrl-C sets. A second Ctrl-C ends the program at once."""
    stop = StopFlag()

    def handle(number: int, frame: FrameType | None) -> None:
        if stop:
            raise KeyboardInterrupt
        stop.signal_number = number
        announce("stopping: saving the finished clips")

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
