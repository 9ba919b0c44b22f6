"""Jobs on disk: what was uploaded, how far the work on it is, and what came of it. A restart knows them all again.

data/jobs/ID/job.json      the facts below, written anew at each step
data/jobs/ID/video         what was uploaded or fetched, under no name of its uploader's
data/jobs/ID/…             what was made of it: see `FILES`
"""

import json
import logging
import secrets
import shutil
import string
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from features.errors import RuntimeEnvironmentError
from features.utils.files import write_atomically

JobState = Literal["queued", "fetching", "decoding", "done", "failed"]
FINAL_STATES: tuple[JobState, ...] = ("done", "failed")
ID_ALPHABET = string.digits + string.ascii_lowercase
ID_LENGTH = 26
"""134 bits: nobody guesses a job of somebody else's."""
RECORD_NAME, VIDEO_NAME = "job.json", "video"
JOB_FILES: Mapping[str, str] = {
    "upload": VIDEO_NAME,
    "preview": "preview.mp4",
    "annotated": "annotated.mp4",
    "csv": "result.csv",
    "picture": "picture.jpg",
    "answer": "answer.json",
}
PLAYABLE_TYPES = ("video/mp4", "video/webm")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class VideoJob:
    """What is known of one video."""

    id: str
    name: str
    """What its uploader called it, or its address: text to be shown, never a path."""
    model: str
    created: datetime
    expires: datetime
    state: JobState = "queued"
    reason: str = ""
    """Why it failed, or was read only in part."""
    stage: str = ""
    """Where it failed: `open` means that it is no video, `fetch` that it did not come."""
    seconds: float | None = None
    label: str = ""
    confidence: float | None = None
    is_unknown: bool = False
    """Unlike all that its model was trained on, so that its label means little."""
    address: str = ""
    """Where it is fetched from, if it was not uploaded."""
    media: str = ""
    """What the uploaded file is to a browser: video/mp4 or video/webm; empty where none plays it."""
    attempts: int = 0
    """How often the work on it was begun."""
    has_preview: bool = False
    has_annotated: bool = False
    is_annotating: bool = False
    annotate_reason: str = ""
    """Why there is no annotated video."""
    progress: float = 0.0
    annotated_share: float = 0.0
    """How far the annotated video is that is being made."""
    place: int = 0
    """In the queue, from 1; 0 where it does not wait."""

    @property
    def is_over(self) -> bool:
        """Whether it is done or failed."""
        return self.state in FINAL_STATES

    def as_json(self) -> dict[str, Any]:
        """What the API says of it."""
        at = f"/jobs/{self.id}"
        is_done = self.state == "done"
        return {
            "id": self.id,
            "name": self.name,
            "model": self.model,
            "state": self.state,
            "progress": round(self.progress, 3),
            "place": self.place,
            "created": format_utc(self.created),
            "expires": format_utc(self.expires),
            "seconds": self.seconds,
            "reason": self.reason,
            "label": self.label,
            "confidence": self.confidence,
            "is_unknown": self.is_unknown,
            "has_annotated": self.has_annotated,
            "annotate_reason": self.annotate_reason,
            "annotating": round(self.annotated_share, 3) if self.is_annotating else None,
            "links": {
                "self": at,
                "page": f"{at}/page",
                "result": f"{at}/result" if is_done else None,
                "video": f"{at}/video" if is_done and (self.media or self.has_preview) else None,
                "annotated": f"{at}/annotated" if self.has_annotated else None,
                "csv": f"{at}/result.csv" if is_done else None,
            },
        }


def format_utc(time: datetime) -> str:
    """UTC to the second, as `2026-01-02T03:04:05Z`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class JobStore:
    """All jobs of a folder. Whoever waits for a change waits on `changed`."""

    def __init__(self, folder: Path, *, keep_seconds: float, clock: Callable[[], float]) -> None:
        self.folder = folder
        self.changed = threading.Condition(threading.RLock())
        self._lifetime, self._clock = timedelta(seconds=keep_seconds), clock
        self._jobs: dict[str, VideoJob] = {}
        self._sizes: dict[str, int] = {}

    def recover(self) -> list[VideoJob]:
        """Knows what lies in the folder, oldest first; what is no job, or has lost its file, is removed."""
        for place in self.folder.iterdir():
            job = _read_job(place / RECORD_NAME, place.name)
            if job is None or not (job.address or (place / VIDEO_NAME).is_file()):
                log.warning("what is left of job %s is removed: its file or its record is gone", place.name)
                _remove_folder(place)
                continue
            self._jobs[job.id], self._sizes[job.id] = job, _measure_folder(place)
        self._jobs = dict(sorted(self._jobs.items(), key=lambda pair: pair[1].created))
        return list(self._jobs.values())

    def add(self, *, name: str, model: str, file: Path | None = None, url: str = "") -> VideoJob:
        """A new job, on disk; `file` is moved into its folder. Raises EnvironmentStopped or OSError."""
        now = self.now()
        identity = "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))
        job = VideoJob(identity, name, model, now, now + self._lifetime, address=url)
        place = self.job_folder(identity)
        try:
            place.mkdir()
            write_atomically(place / RECORD_NAME, _dump_job(job))
            if file is not None:
                shutil.move(file, place / VIDEO_NAME)
        except (OSError, RuntimeEnvironmentError):
            _remove_folder(place)
            raise
        with self.changed:
            self._jobs[identity], self._sizes[identity] = job, _measure_folder(place)
            self.changed.notify_all()
        return job

    def get(self, job_id: str) -> VideoJob | None:
        """None where there is no such job."""
        with self.changed:
            return self._jobs.get(job_id)

    def list_all(self) -> list[VideoJob]:
        """Newest first."""
        with self.changed:
            return list(reversed(self._jobs.values()))

    def job_folder(self, job_id: str) -> Path:
        """The folder of a job."""
        return self.folder / job_id

    def update(self, job_id: str, **facts: Any) -> VideoJob | None:
        """Changes facts of a job, here and on disk; None where it was deleted meanwhile.

        What a full disk does not take down is found out again by the next server.
        """
        with self.changed:
            if job_id not in self._jobs:
                return None
            job = self._jobs[job_id] = replace(self._jobs[job_id], **facts)
            try:
                write_atomically(self.job_folder(job_id) / RECORD_NAME, _dump_job(job))
            except RuntimeEnvironmentError as error:
                log.warning("job %s: %s", job_id, error)
            self._sizes[job_id] = _measure_folder(self.job_folder(job_id))
            self.changed.notify_all()
            return job

    def remove(self, job_id: str) -> bool:
        """Whether there was such a job; nothing of it is left."""
        with self.changed:
            known = self._jobs.pop(job_id, None) is not None
            self._sizes.pop(job_id, None)
            self.changed.notify_all()
        self.remove_leftovers(job_id)
        return known

    def remove_leftovers(self, job_id: str) -> None:
        """Removes what a worker may have left in the folder of a job that is gone."""
        if self.get(job_id) is None:
            _remove_folder(self.job_folder(job_id))

    def find_expired(self) -> list[str]:
        """Jobs that are over and past their time."""
        now = self.now()
        return [job.id for job in self.list_all() if job.is_over and job.expires <= now]

    def find_oldest_over(self, max_bytes: int) -> list[str]:
        """The oldest jobs that are over, so many that without them the others fit into `max_bytes`."""
        with self.changed:
            over, sum_bytes = [], self.total_bytes
            for job in self._jobs.values():
                if sum_bytes <= max_bytes:
                    break
                if job.is_over:
                    over.append(job.id)
                    sum_bytes -= self._sizes[job.id]
            return over

    @property
    def total_bytes(self) -> int:
        """What all of them take on the disk."""
        with self.changed:
            return sum(self._sizes.values())

    def now(self) -> datetime:
        """UTC."""
        return datetime.fromtimestamp(self._clock(), UTC)


_TRANSIENT_FIELDS = ("progress", "place", "annotated_share")


def _dump_job(job: VideoJob) -> bytes:
    facts = {key: value for key, value in asdict(job).items() if key not in _TRANSIENT_FIELDS}
    facts |= {"created": job.created.timestamp(), "expires": job.expires.timestamp()}
    return (json.dumps(facts) + "\n").encode()


def _read_job(file: Path, job_id: str) -> VideoJob | None:
    """None for what is none, or another's."""
    try:
        facts = json.loads(file.read_bytes())
        moments = {key: datetime.fromtimestamp(facts[key], UTC) for key in ("created", "expires")}
        job = VideoJob(**{key: facts[key] for key in facts if key in _STORED_FIELDS} | moments)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return job if job.id == job_id else None


_STORED_FIELDS = {each.name for each in fields(VideoJob)} - set(_TRANSIENT_FIELDS)


def _measure_folder(folder: Path) -> int:
    try:
        return sum(entry.stat().st_size for entry in folder.iterdir() if entry.is_file())
    except OSError:
        return 0


def _remove_folder(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
    else:
        folder.unlink(missing_ok=True)
