"""Download of all clips that are URLs, in sandboxed processes that can be killed, before anything is decoded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urldefrag

from features.config import RunSettings
from features.errors import ClipError, RuntimeEnvironmentError
from features.sources.download.http import DownloadLimits, WebPageError, download, format_timeout_reason
from features.sources.download.policy import DownloadPolicy
from features.sources.download.sandbox import guard_process
from features.sources.download.webpage import can_read_pages, fetch_page
from features.sources.urls import is_url
from features.types import Clip, Failure
from features.utils.files import check_writable, remove_stale_temporaries
from features.utils.progress import make_progress_bar
from features.utils.worker_pool import LostTask, run_tasks

MAX_PARALLEL_DOWNLOADS = 4
"""Most downloads at the same time."""


@dataclass(frozen=True)
class DownloadTask:
    """One download: a URL without its fragment, and the file to write."""

    url: str
    destination: Path


@dataclass(frozen=True)
class DownloadJob:
    """The work of a process that downloads videos and can connect only where the policy allows."""

    policy: DownloadPolicy
    limits: DownloadLimits

    def start(self) -> Callable[[DownloadTask, Callable[[], None]], ClipError | RuntimeEnvironmentError | None]:
        """Sandbox this process permanently and return the function that does one download.

        It sends no heartbeat, so that the deadline of the pool limits the whole download.
        """
        guard_process(self.policy)
        return lambda task, report_alive: fetch_one(task, policy=self.policy, limits=self.limits)


def fetch_one(
    task: DownloadTask, *, policy: DownloadPolicy, limits: DownloadLimits
) -> ClipError | RuntimeEnvironmentError | None:
    """Download a video file, or the video of a web page. Return None on success, else the error."""
    try:
        try:
            download(task.url, task.destination, policy=policy, limits=limits)
        except WebPageError as error:
            if not can_read_pages():
                raise ClipError("fetch", f"{error}; web pages need `pip install yt-dlp`") from None
            fetch_page(task.url, task.destination, policy=policy, limits=limits)
    except (ClipError, RuntimeEnvironmentError) as error:
        return error
    except MemoryError:
        return ClipError("fetch", "out of memory")
    except Exception as error:
        return ClipError("fetch", f"{type(error).__name__}: {error}".splitlines()[0])
    return None


def fetch_clips(
    clips: Sequence[Clip], settings: RunSettings, *, is_stopped: Callable[[], bool] = lambda: False
) -> tuple[list[Clip], list[Failure]]:
    """Download the files that do not exist yet. Return the clips whose file exists, and the failures of the others.

    Clips that are not URLs are returned as they are. If the run is stopped, clips that were not tried are in neither
    list. Raises RuntimeEnvironmentError if the downloads cannot be written.
    """
    tasks = {
        clip.file: DownloadTask(urldefrag(clip.path).url, clip.file)
        for clip in clips
        if is_url(clip.path) and not clip.file.is_file()
    }
    if not tasks:
        return list(clips), []
    problems = _fetch_all(list(tasks.values()), settings, is_stopped)
    ready = [clip for clip in clips if clip.file not in tasks or (clip.file in problems and not problems[clip.file])]
    failed = [Failure(clip, p.stage, p.reason) for clip in clips if (p := problems.get(clip.file)) is not None]
    return ready, failed


def _fetch_all(
    tasks: Sequence[DownloadTask], settings: RunSettings, is_stopped: Callable[[], bool]
) -> dict[Path, ClipError | None]:
    """Return the error of each download by its file, None for a success. Raises RuntimeEnvironmentError."""
    folders = {task.destination.parent for task in tasks}
    for folder in folders:
        check_writable(folder / "downloads")
        remove_stale_temporaries(folder)
    limits = DownloadLimits(max_bytes=settings.download_bytes, max_seconds=settings.download_seconds)
    job = DownloadJob(DownloadPolicy(networks=tuple(map(str, settings.download_networks))), limits)
    workers = min(MAX_PARALLEL_DOWNLOADS, len(tasks))
    results = run_tasks(job, tasks, workers=workers, deadline_seconds=limits.max_seconds, is_stopped=is_stopped)
    problems: dict[Path, ClipError | None] = {}
    try:
        with make_progress_bar(len(tasks), description="download", unit="video") as bar:
            for task, result in results:
                if isinstance(result, RuntimeEnvironmentError):
                    raise result
                error = _make_lost_error(result, limits) if isinstance(result, LostTask) else result
                problems[task.destination] = error  # type: ignore[assignment]
                bar.update()
    finally:
        results.close()  # type: ignore[attr-defined]
        for folder in folders:
            remove_stale_temporaries(folder)
    return problems


def _make_lost_error(lost: LostTask, limits: DownloadLimits) -> ClipError:
    is_timeout = lost.reason.startswith("timeout")
    return ClipError("fetch", format_timeout_reason(limits) if is_timeout else "the download process crashed")
