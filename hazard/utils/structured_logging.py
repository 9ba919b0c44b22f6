"""Log output as text for people, or as one JSON object per line, on standard error, for programs."""

import json
import logging
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal, Protocol

import click

from features.errors import UserFacingError
from features.utils.command_line import EXIT_INTERRUPTED
from features.utils.missing_libraries import explain_missing_libraries

LogFormat = Literal["text", "json"]
_STANDARD_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

log = logging.getLogger("hazard")


class MessagePrinter(Protocol):
    """A function that prints a line. `facts` become fields of the line in JSON."""

    def __call__(self, text: str, **facts: object) -> None:
        """Print the line immediately."""
        ...


class JsonLinesFormatter(logging.Formatter):
    """Formatter with the fields `time` (UTC), `level`, `logger` and `message`, and those given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        entry: dict[str, object] = {
            key: value for key, value in vars(record).items() if key not in _STANDARD_RECORD_FIELDS
        }
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage().strip(),
        } | {key: value for key, value in entry.items() if key not in ("time", "level", "logger")}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def configure_log_format(log_format: LogFormat) -> None:
    """Set the format of all further log output.

    In JSON this includes Python warnings and uncaught exceptions.
    """
    formatter = JsonLinesFormatter() if log_format == "json" else logging.Formatter("%(message)s")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)
    if log_format == "json":
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_of_thread


def make_message_printer(log_format: LogFormat) -> MessagePrinter:
    """Return a printer that writes to standard output as text, or to the log as JSON."""

    def print_message(text: str, **facts: object) -> None:
        if log_format == "json":
            log.info("%s", text, extra=facts)
        else:
            click.echo(text)

    return print_message


@contextmanager
def log_final_error(log_format: LogFormat) -> Iterator[None]:
    """Log the error that ends a command as the last JSON line; in text format, let the command show it."""
    try:
        with explain_missing_libraries():
            yield
    except UserFacingError as error:
        if log_format == "text":
            raise
        log.error("%s", error, extra={"exit_code": error.exit_code})
        raise click.exceptions.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        if log_format == "text":
            raise
        log.error("interrupted", extra={"exit_code": EXIT_INTERRUPTED})
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


def _log_uncaught(error_type: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    log.critical("%s: %s", error_type.__name__, error, exc_info=(error_type, error, traceback))


def _log_uncaught_of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
