"""Users' feedback on events (right or wrong), one line each, and the corrections made from it for training."""

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
"""Right or wrong; empty for feedback that was removed."""
VERDICTS: tuple[str, ...] = get_args(Verdict)
MAX_LABEL_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Feedback:
    """The feedback on one event, with the facts that training needs after the event left the log."""

    key: str
    mark: Verdict
    label: str
    """The correct label of a wrong event, if the user chose one."""
    event_label: str
    camera: str
    started: str
    clip: str
    at: str


@dataclass
class FeedbackStore:
    """The feedback of one site. The latest of each event counts."""

    file: Path
    by_key: dict[str, Feedback] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def get(self, key: str) -> Feedback | None:
        """Return the feedback on an event, or None."""
        return self.by_key.get(key)

    def get_verdict(self, key: str) -> Verdict:
        """Return the verdict on an event; empty if there is none."""
        feedback = self.by_key.get(key)
        return feedback.mark if feedback else ""

    def save(self, event: RecordedEvent, verdict: Verdict, label: str, now: float) -> bool:
        """Store feedback on disk. Return False if it is already stored. Raises RuntimeEnvironmentError."""
        feedback = Feedback(
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
            previous = self.by_key.get(event.key)
            if (previous.mark, previous.label) == (verdict, label) if previous else not verdict:
                return False
            _append_feedback(self.file, feedback)
            if verdict:
                self.by_key[event.key] = feedback
            else:
                self.by_key.pop(event.key, None)
        return True

    def list_all(self) -> list[Feedback]:
        """Return all feedback, oldest event first."""
        with self._lock:
            return sorted(self.by_key.values(), key=lambda feedback: (feedback.started, feedback.key))


def open_feedback(folder: Path, sites: Iterable[str]) -> dict[str, FeedbackStore]:
    """Open the feedback of each site. Raises RuntimeEnvironmentError if the folder cannot be used."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise make_write_error(error, folder) from error
    return {site: _open_store(folder / f"{sha256(site.encode()).hexdigest()[:16]}.jsonl") for site in sites}


def _open_store(file: Path) -> FeedbackStore:
    """Read the feedback of a site. Incomplete lines of a killed server, and many outdated ones, are removed."""
    by_key: dict[str, Feedback] = {}
    try:
        content = file.read_bytes() if file.exists() else b""
    except OSError as error:
        raise make_write_error(error, file) from error
    lines = content.split(b"\n")
    for line in lines[:-1]:
        with suppress(ValueError, KeyError, TypeError, RecursionError):  # not a line of ours
            feedback = Feedback(**json.loads(line))
            if feedback.mark in VERDICTS and all(isinstance(value, str) for value in asdict(feedback).values()):
                by_key.pop(feedback.key, None)
                by_key |= {feedback.key: feedback} if feedback.mark else {}
    if lines[-1] or len(lines) > 2 * len(by_key) + 1000:
        write_atomically(file, b"".join(_format_line(feedback) for feedback in by_key.values()))
    return FeedbackStore(file, by_key)


def _append_feedback(file: Path, feedback: Feedback) -> None:
    try:
        with open(file, "ab") as handle:
            size = handle.tell()
            try:
                handle.write(_format_line(feedback))
                handle.flush()
                os.fsync(handle.fileno())
            except OSError:
                os.truncate(file, size)  # an incomplete line would spoil the next one
                raise
    except OSError as error:
        raise make_write_error(error, file) from error


def _format_line(feedback: Feedback) -> bytes:
    return json.dumps(asdict(feedback)).encode() + b"\n"


def make_corrections(
    feedback: Iterable[Feedback], model_labels: Iterable[tuple[str, ...]], *, other_label: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield the file name and the correct label of each marked clip. The name is relative to the folder of clips.

    A right event keeps its label. A wrong one gets the label that the user chose, else `other_label`, else the other
    label of the two-label models that know its label, else an empty label, which excludes the clip from training.
    """
    label_sets = [set(names) for names in model_labels]
    for item in feedback:
        if item.clip and item.mark == "right":
            yield item.clip, item.event_label
        elif item.clip:
            yield item.clip, item.label or other_label or _find_other_label(item, label_sets)


def _find_other_label(feedback: Feedback, label_sets: Iterable[set[str]]) -> str:
    others = {frozenset(names - {feedback.event_label}) for names in label_sets if feedback.event_label in names}
    labels = next(iter(others)) if len(others) == 1 else frozenset()
    return next(iter(labels)) if len(labels) == 1 else ""


def format_corrections_csv(rows: Iterable[tuple[str, str]]) -> str:
    """Return the CSV that `train-temporal --labels` reads. It is also a valid manifest for `extract-features`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(CSV_COLUMNS)
    for row in rows:
        writer.writerow(["'" + cell if cell.startswith(FORMULA_STARTS) else cell for cell in (*row, "", "")])
    return text.getvalue()


class _ModelLabels(ModelInputSpec):
    """The part of model.json that lists the labels."""

    labels: tuple[str, ...]


def make_model_labels_reader(models: Mapping[str, Path]) -> Callable[[], list[tuple[str, ...]]]:
    """Return a function that reads the labels of each model. Models that cannot be read are left out."""

    def read_model_labels() -> list[tuple[str, ...]]:
        labels = []
        for folder in models.values():
            with suppress(SettingsError, ArtifactError, RuntimeEnvironmentError):
                labels.append(read_model_json(folder, _ModelLabels).labels)
        return labels

    return read_model_labels
