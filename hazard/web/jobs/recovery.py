"""What a server finds when it begins, and leaves when it ends: a folder of its own, jobs to go on with."""

import shutil
from pathlib import Path

from hazard.web.jobs.queue import Task, TaskQueue
from hazard.web.jobs.store import VIDEO_NAME, JobStore


def clear_folder(folder: Path) -> None:
    """Removes what is left of uploads and work that nobody finished."""
    for each in folder.iterdir():
        shutil.rmtree(each, ignore_errors=True) if each.is_dir() else each.unlink(missing_ok=True)


def requeue_unfinished(jobs: JobStore, analysis_queue: TaskQueue, fetch_queue: TaskQueue) -> None:
    """What an earlier server did not finish waits again."""
    for job in jobs.recover():
        if not job.is_over:
            is_there = (jobs.job_folder(job.id) / VIDEO_NAME).is_file()
            jobs.update(job.id, state="queued")
            (analysis_queue if is_there else fetch_queue).put(Task("look" if is_there else "fetch", job.id))
        elif job.state == "done":
            if job.is_annotating:
                analysis_queue.put(Task("annotate", job.id))
            if not job.media and not job.has_preview:
                analysis_queue.put(Task("preview", job.id))


def requeue_interrupted(jobs: JobStore) -> None:
    """That a server was stopped is no fault of what it was at."""
    for job in jobs.list_all():
        if job.state in ("decoding", "fetching"):
            jobs.update(job.id, state="queued", attempts=max(0, job.attempts - 1))
