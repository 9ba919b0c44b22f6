"""What a program says: for people as it is, for programs as one JSON object a line, all of it on standard error."""

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

LogFormat = Literal["text", "json"]
_STANDARD_RECORD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

log = logging.getLogger("hazard")


class MessagePrinter(Protocol):
    """Says a line. Facts are what programs read of it."""

    def __call__(self, text: str, **facts: object) -> None:
        """Says it at once."""
        ...


class JsonLinesFormatter(logging.Formatter):
    """`time` (UTC), `level`, `logger`, `message`, and whatever `extra` the call gave."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
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


def configure_log_format(kind: LogFormat) -> None:
    """What the program logs from now on looks so; as JSON also warnings, and errors that nobody expected."""
    formatter = JsonLinesFormatter() if kind == "json" else logging.Formatter("%(message)s")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)
    if kind == "json":
        logging.captureWarnings(True)
        sys.excepthook = _log_uncaught
        threading.excepthook = _log_uncaught_of_thread


def make_message_printer(kind: LogFormat) -> MessagePrinter:
    """Lines for people go to standard output; for programs they are log lines like all others."""

    def say(text: str, **facts: object) -> None:
        if kind == "json":
            log.info("%s", text, extra=facts)
        else:
            click.echo(text)

    return say


@contextmanager
def log_final_error(kind: LogFormat) -> Iterator[None]:
    """As JSON, the error that ends a command is its last line; else it is left to the command."""
    try:
        yield
    except UserFacingError as error:
        if kind == "text":
            raise
        log.error("%s", error, extra={"exit_code": error.exit_code})
        raise click.exceptions.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        if kind == "text":
            raise
        log.error("interrupted", extra={"exit_code": EXIT_INTERRUPTED})
        raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    log.critical("%s: %s", kind.__name__, error, exc_info=(kind, error, traceback))


def _log_uncaught_of_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit and args.exc_value is not None:
        _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)
