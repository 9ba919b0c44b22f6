"""Log lines: for people as they are, for programs as one JSON object a line."""

import json
import logging
from datetime import UTC, datetime
from typing import Literal

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """`time` (UTC), `level`, `logger`, `message`, and whatever `extra` the call gave."""

    def format(self, record: logging.LogRecord) -> str:
        """One line of JSON."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= {key: value for key, value in vars(record).items() if key not in _USUAL}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def log_as(kind: Literal["text", "json"]) -> None:
    """What the program logs from now on looks so."""
    formatter = JsonLines() if kind == "json" else logging.Formatter("%(message)s")
    for handler in logging.getLogger().handlers:
        handler.setFormatter(formatter)
