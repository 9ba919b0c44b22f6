"""What people said of events: right or wrong, kept by the page itself, a line each; and what training makes of it."""

import csv
import io
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

from features.errors import ArtifactError, RuntimeEnvironmentError, SettingsError
from features.utils.files import make_write_error, write_atomically
from hazard.data.corrections import CSV_COLUMNS, FORMULA_STARTS
from hazard.models.input_spec import ModelInputSpec, read_model_json
from hazard.web.cameras.events import RecordedEvent, format_time

Verdict = Literal["right", "wrong", ""]
"""Nothing: a mark that was taken back."""
VERDICTS: tuple[str, ...] = get_args(Verdict)
MAX_LABEL_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Feedback:
    """What somebody said of an event; enough of the event to train with it once the log has forgotten it."""

    key: str
    mark: Verdict
    label: str
    """What it was, where somebody said so."""
    event_label: str
    camera: str
    started: str
    clip: str
    at: str


@dataclass
class FeedbackStore:
    """The marks of one site: the last of an event counts."""

    file: Path
    by_key: dict[str, Feedback] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def get(self, key: str) -> Feedback | None:
        """What was said of an event."""
        return self.by_key.get(key)

    def verdict(self, key: str) -> Verdict:
        """The word alone."""
        mark = self.by_key.get(key)
        return mark.mark if mark else ""

    def save(self, event: RecordedEvent, verdict: Verdict, label: str, now: float) -> bool:
        """On disk when this returns; False where it was said already. Raises EnvironmentStopped."""
        mark = Feedback(
            event.key,
            verdict,
            label,
            event.label,
            event.camera,
            format_time(event.started),
            event.clip,
            format_time(now),
        )
        with self._lock:
            held = self.by_key.get(event.key)
            if (held.mark, held.label) == (verdict, label) if held else not verdict:
                return False
            _append_feedback(self.file, mark)
            if verdict:
                self.by_key[event.key] = mark
            else:
                self.by_key.pop(event.key, None)
        return True

    def list_all(self) -> list[Feedback]:
        """Oldest event first."""
        with self._lock:
            return sorted(self.by_key.values(), key=lambda mark: (mark.started, mark.key))


def open_feedback(folder: Path, sites: Iterable[str]) -> dict[str, FeedbackStore]:
    """The marks of each site. Raises EnvironmentStopped where the folder cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise make_write_error(error, folder) from error
    return {site: _open_store(folder / f"{sha256(site.encode()).hexdigest()[:16]}.jsonl") for site in sites}


def _open_store(file: Path) -> FeedbackStore:
    """Half a line, of a server that was killed while it wrote, is cut off; so is what was said and taken back."""
    by_key: dict[str, Feedback] = {}
    try:
        content = file.read_bytes() if file.exists() else b""
    except OSError as error:
        raise make_write_error(error, file) from error
    lines = content.split(b"\n")
    for line in lines[:-1]:
        with suppress(ValueError, KeyError, TypeError, RecursionError):  # somebody else's line
            mark = Feedback(**json.loads(line))
            if mark.mark in VERDICTS and all(isinstance(value, str) for value in asdict(mark).values()):
                by_key.pop(mark.key, None)
                by_key |= {mark.key: mark} if mark.mark else {}
    if lines[-1] or len(lines) > 2 * len(by_key) + 1000:
        write_atomically(file, b"".join(_format_line(mark) for mark in by_key.values()))
    return FeedbackStore(file, by_key)


def _append_feedback(file: Path, feedback: Feedback) -> None:
    try:
        with open(file, "ab") as opened:
            size = opened.tell()
            try:
                opened.write(_format_line(feedback))
                opened.flush()
                os.fsync(opened.fileno())
            except OSError:
                os.truncate(file, size)  # no half line that the next one would be written behind
                raise
    except OSError as error:
        raise make_write_error(error, file) from error


def _format_line(feedback: Feedback) -> bytes:
    return json.dumps(asdict(feedback)).encode() + b"\n"


def make_corrections(
    feedback: Iterable[Feedback], model_labels: Iterable[tuple[str, ...]], *, other_label: str = ""
) -> Iterator[tuple[str, str]]:
    """Path and label of each clip that a mark tells training something of; the path is a name in the clips' folder.

    A right event has its label. A wrong one has the label that was said, else `other`, else the other one of two where
    the models that know its label know two, else none: it is left out of training.
    """
    known = [set(names) for names in model_labels]
    for mark in feedback:
        if mark.clip:
            yield (
                mark.clip,
                mark.event_label
                if mark.mark == "right"
                else mark.label or other_label or _find_other_label(mark, known),
            )


def _find_other_label(feedback: Feedback, label_sets: Iterable[set[str]]) -> str:
    others = {frozenset(names - {feedback.event_label}) for names in label_sets if feedback.event_label in names}
    only = next(iter(others)) if len(others) == 1 else frozenset()
    return next(iter(only)) if len(only) == 1 else ""


def format_corrections_csv(rows: Iterable[tuple[str, str]]) -> str:
    """The file that `train_temporal.py --labels` reads, and that `extract_features.py` takes for a manifest."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        writer.writerow(["'" + cell if cell.startswith(FORMULA_STARTS) else cell for cell in (*row, "", "")])
    return text.getvalue()


class _ModelLabels(ModelInputSpec):
    """The part of model.json that says what clips may be called."""

    labels: tuple[str, ...]


def make_model_labels_reader(models: Mapping[str, Path]) -> Callable[[], list[tuple[str, ...]]]:
    """What each model may call a clip, read when it is asked for; a model that cannot be read has nothing to say."""

    def labels() -> list[tuple[str, ...]]:
        found = []
        for folder in models.values():
            with suppress(SettingsError, ArtifactError, RuntimeEnvironmentError):
                found.append(read_model_json(folder, _ModelLabels).labels)
        return found

    return labels
