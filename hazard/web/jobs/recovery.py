"""Recovery of unfinished jobs when a server starts, and requeueing when it stops."""

import shutil
from pathlib import Path

from hazard.web.jobs.queue import Task, TaskQueue
from hazard.web.jobs.store import VIDEO_NAME, JobStore


def clear_folder(folder: Path) -> None:
    """Remove what unfinished uploads and tasks left in a folder."""
    for entry in folder.iterdir():
        shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)


def requeue_unfinished(jobs: JobStore, analysis_queue: TaskQueue, fetch_queue: TaskQueue) -> None:
    """Queue again everything that an earlier server did not finish."""
    for job in jobs.recover():
        if not job.is_over:
            has_video = (jobs.job_folder(job.id) / VIDEO_NAME).is_file()
            jobs.update(job.id, state="queued")
            (analysis_queue if has_video else fetch_queue).put(Task("analyse" if has_video else "fetch", job.id))
        elif job.state == "done":
            if job.is_annotating:
                analysis_queue.put(Task("annotate", job.id))
            if not job.media and not job.has_preview:
                analysis_queue.put(Task("preview", job.id))


def requeue_interrupted(jobs: JobStore) -> None:
    """Set the jobs that a stopping server interrupts back to `queued`, without counting the attempt."""
    for job in jobs.list_all():
        if job.state in ("decoding", "fetching"):
            jobs.update(job.id, state="queued", attempts=max(0, job.attempts - 1))
