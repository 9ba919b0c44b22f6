"""The store of jobs on disk: each job's video, record and results. A restart reads them all again.

data/jobs/ID/job.json      the fields of `VideoJob`, rewritten at each change
data/jobs/ID/video         the uploaded or fetched video; the uploader's file name is never used
data/jobs/ID/…             the results: see `JOB_FILES`
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
"""134 bits, so that nobody can guess the id of another user's job."""
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
    """One video and the state of the work on it."""

    id: str
    name: str
    """The uploader's file name or the URL. It is shown as text and never used as a path."""
    model: str
    created: datetime
    expires: datetime
    state: JobState = "queued"
    reason: str = ""
    """The reason of a failure, or of a video that was read only in part."""
    stage: str = ""
    """The stage that failed: `open` if the file is not a video, `fetch` if the download failed."""
    seconds: float | None = None
    label: str = ""
    confidence: float | None = None
    is_unknown: bool = False
    """Whether the video is unlike the training videos, so that its label is not reliable."""
    address: str = ""
    """The URL to fetch the video from; empty for an upload."""
    media: str = ""
    """The media type of the uploaded file, video/mp4 or video/webm; empty if browsers cannot play it."""
    attempts: int = 0
    """The number of times that the analysis was started."""
    has_preview: bool = False
    has_annotated: bool = False
    is_annotating: bool = False
    annotate_reason: str = ""
    """The reason why the annotated video could not be made."""
    progress: float = 0.0
    annotated_share: float = 0.0
    """The progress of the annotated video, 0 to 1."""
    place: int = 0
    """The position in the queue, from 1; 0 if the job is not waiting."""

    @property
    def is_over(self) -> bool:
        """Whether the job is done or failed."""
        return self.state in FINAL_STATES

    def as_json(self) -> dict[str, Any]:
        """Return the job as the API answers it."""
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
    """Return a time in UTC to the second, such as `2026-01-02T03:04:05Z`."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class JobStore:
    """All jobs of a folder. `changed` is notified at each change."""

    def __init__(self, folder: Path, *, keep_seconds: float, clock: Callable[[], float]) -> None:
        self.folder = folder
        self.changed = threading.Condition(threading.RLock())
        self._lifetime, self._clock = timedelta(seconds=keep_seconds), clock
        self._jobs: dict[str, VideoJob] = {}
        self._sizes: dict[str, int] = {}

    def recover(self) -> list[VideoJob]:
        """Read the jobs of the folder, oldest first. Entries that are not jobs, or lost their video, are removed."""
        for folder in self.folder.iterdir():
            job = _read_job(folder / RECORD_NAME, folder.name)
            if job is None or not (job.address or (folder / VIDEO_NAME).is_file()):
                log.warning("removing what is left of job %s: its video or its record is missing", folder.name)
                _remove_folder(folder)
                continue
            self._jobs[job.id], self._sizes[job.id] = job, _measure_folder(folder)
        self._jobs = dict(sorted(self._jobs.items(), key=lambda pair: pair[1].created))
        return list(self._jobs.values())

    def add(self, *, name: str, model: str, file: Path | None = None, url: str = "") -> VideoJob:
        """Store a new job and return it. `file` is moved into its folder. Raises RuntimeEnvironmentError or OSError."""
        now = self.now()
        job_id = "".join(secrets.choice(ID_ALPHABET) for _ in range(ID_LENGTH))
        job = VideoJob(job_id, name, model, now, now + self._lifetime, address=url)
        folder = self.job_folder(job_id)
        try:
            folder.mkdir()
            write_atomically(folder / RECORD_NAME, _dump_job(job))
            if file is not None:
                shutil.move(file, folder / VIDEO_NAME)
        except (OSError, RuntimeEnvironmentError):
            _remove_folder(folder)
            raise
        with self.changed:
            self._jobs[job_id], self._sizes[job_id] = job, _measure_folder(folder)
            self.changed.notify_all()
        return job

    def get(self, job_id: str) -> VideoJob | None:
        """Return a job, or None if it does not exist."""
        with self.changed:
            return self._jobs.get(job_id)

    def list_all(self) -> list[VideoJob]:
        """Return all jobs, newest first."""
        with self.changed:
            return list(reversed(self._jobs.values()))

    def job_folder(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self.folder / job_id

    def update(self, job_id: str, **facts: Any) -> VideoJob | None:
        """Change fields of a job, in memory and on disk, and return it. Return None if it was deleted meanwhile.

        If the record cannot be written, the change is kept in memory and logged; the next server repeats the work.
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
        """Remove a job and all its files. Return whether it existed."""
        with self.changed:
            existed = self._jobs.pop(job_id, None) is not None
            self._sizes.pop(job_id, None)
            self.changed.notify_all()
        self.remove_leftovers(job_id)
        return existed

    def remove_leftovers(self, job_id: str) -> None:
        """Remove the files that a worker left in the folder of a deleted job."""
        if self.get(job_id) is None:
            _remove_folder(self.job_folder(job_id))

    def find_expired(self) -> list[str]:
        """Return the ids of finished jobs whose retention time has passed."""
        now = self.now()
        return [job.id for job in self.list_all() if job.is_over and job.expires <= now]

    def find_oldest_over(self, max_bytes: int) -> list[str]:
        """Return the ids of the oldest finished jobs, as many as must go for the others to fit into `max_bytes`."""
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
        """The disk space of all jobs, in bytes."""
        with self.changed:
            return sum(self._sizes.values())

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.fromtimestamp(self._clock(), UTC)


_TRANSIENT_FIELDS = ("progress", "place", "annotated_share")


def _dump_job(job: VideoJob) -> bytes:
    facts = {key: value for key, value in asdict(job).items() if key not in _TRANSIENT_FIELDS}
    facts |= {"created": job.created.timestamp(), "expires": job.expires.timestamp()}
    return (json.dumps(facts) + "\n").encode()


def _read_job(file: Path, job_id: str) -> VideoJob | None:
    """Return the job of a record, or None if the record is damaged or belongs to another id."""
    try:
        facts = json.loads(file.read_bytes())
        moments = {key: datetime.fromtimestamp(facts[key], UTC) for key in ("created", "expires")}
        job = VideoJob(**{key: facts[key] for key in facts if key in _STORED_FIELDS} | moments)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return job if job.id == job_id else None


_STORED_FIELDS = {field.name for field in fields(VideoJob)} - set(_TRANSIENT_FIELDS)


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
