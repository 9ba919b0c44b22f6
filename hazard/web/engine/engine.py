"""The engine behind the page and the API: videos in, answers out. It knows nothing of HTTP."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from features.errors import EnvironmentStopped, SettingsError
from features.sources.download.http import Limits
from features.sources.download.policy import AddressRefused, Rules, parse_address
from features.sources.urls import is_address
from features.utils.files import check_writable, locked
from features.utils.settings import load_settings
from features.utils.text import nearest, printable
from features.utils.worker_pool import worker_context
from hazard.inference.settings import InferSettings
from hazard.models.input_spec import read_source
from hazard.web.engine.answers import failed_answer, read_answer
from hazard.web.engine.handlers import Fetching, Looking
from hazard.web.engine.model_facts import ModelFacts
from hazard.web.engine.worker_job import WorkJob
from hazard.web.engine.worker_thread import STOP_SECONDS, Hand
from hazard.web.errors import Refused
from hazard.web.jobs.progress import read_reached
from hazard.web.jobs.queue import Task, Waiting
from hazard.web.jobs.recovery import empty, go_on, rest
from hazard.web.jobs.store import FILES, Job, Jobs
from hazard.web.settings import ServeSettings

PRELOAD = (
    "features.extraction.jobs",
    "features.encoders.torch_encoder",
    "hazard.inference.predict",
    "hazard.models.model_folder",
    "hazard.rendering.annotate",
)
JOBS, INCOMING, SCRATCH = "jobs", "incoming", "scratch"
TIDY_SECONDS = 60.0
FETCHERS = 2
"""Videos that are fetched side by side."""
NO_MODEL = "this server has no model, it only shows cameras; whoever runs it can add one (--model)"
MOST_NAME = 200
"""Characters of a name that are kept."""

log = logging.getLogger(__name__)


class Engine:
    """All jobs and who works on them; see `open_engine`. Its functions may be called from any thread."""

    def __init__(
        self, settings: ServeSettings, jobs: Jobs, looking: Looking, fetching: Fetching, hands: Sequence[Hand]
    ) -> None:
        self._settings, self._jobs, self._looking, self._fetching = settings, jobs, looking, fetching
        self._hands = hands

    @property
    def models(self) -> Mapping[str, ModelFacts]:
        """By name, in the order of the settings."""
        return {name: self._looking.facts[name] for name in self._settings.models}

    @property
    def default(self) -> str:
        """The model where none is chosen."""
        return self._looking.default

    @property
    def incoming(self) -> Path:
        """A folder for uploads that are under way, on the same disk; it is emptied when the server starts."""
        return self._settings.data.absolute() / INCOMING

    @property
    def workers(self) -> int:
        """Workers that work."""
        return sum(hand.is_working for hand in self._hands)

    @property
    def is_well(self) -> bool:
        """Whether what is given is worked on, where there is a model to work with."""
        return self.workers > 0 or not self._settings.models

    @property
    def queued(self) -> int:
        """Videos that wait."""
        return sum(job.state == "queued" for job in self._jobs.all())

    def admit(self, size_bytes: int = 0) -> None:
        """Makes room for a video of so many bytes. Raises Refused: 429 where too many wait, 507 without room."""
        if self.queued >= self._settings.queue:
            raise Refused(429, f"{self._settings.queue} videos wait already; try again later")
        most = round(self._settings.keep_gigabytes * 1e9) - size_bytes
        for identity in self._jobs.oldest_over(most):
            self._jobs.remove(identity)
        if self._jobs.bytes > most:
            raise Refused(507, "there is no room on the server for another video; try again later")

    def submit(self, file: Path, *, name: str, model: str = "") -> Job:
        """Takes a video on; the file is moved away. Raises Refused: 400 for an unknown model, 429, 507."""
        chosen = self._model(model)
        self.admit(_size(file))
        job = self._add(name=name, model=chosen, file=file)
        self._looking.waiting.put(Task("look", job.id))
        return self._shown(job)

    def submit_address(self, url: str, *, model: str = "") -> Job:
        """The same for an address. Raises Refused: 400 for what is no address that is ever opened."""
        chosen, address = self._model(model), url.strip()
        try:
            target = parse_address(address)
            if target.host.replace(".", "").isdigit() or ":" in target.host:
                self._fetching.rules.check_ip(target.host, target.port)
        except AddressRefused as error:
            said = str(error).replace("download_networks", "networks") if is_address(address) else "not an address"
            raise Refused(400, f"{printable(said)}; give one such as https://example.org/video.mp4") from None
        self.admit()
        job = self._add(name=address, model=chosen, address=address)
        self._fetching.waiting.put(Task("fetch", job.id))
        return self._shown(job)

    def job(self, identity: str) -> Job | None:
        """With its progress and place in the queue."""
        job = self._jobs.get(identity)
        return None if job is None else self._shown(job)

    def jobs(self) -> list[Job]:
        """Newest first."""
        places = self._places()
        return [self._shown(job, places) for job in self._jobs.all()]

    def answer(self, identity: str) -> dict[str, Any] | None:
        """What came of a job that is over; of a failed one an answer without segments, with its reason."""
        job = self._jobs.get(identity)
        if job is None or not job.is_over:
            return None
        return failed_answer(job) if job.state == "failed" else read_answer(self._jobs.place(job.id) / FILES["answer"])

    def delete(self, identity: str) -> bool:
        """Whether there was such a job; nothing of it is left, and nobody works on it any longer."""
        self._looking.waiting.drop(identity)
        self._fetching.waiting.drop(identity)
        return self._jobs.remove(identity)

    def wait(self, identity: str, seconds: float) -> Job | None:
        """The job as soon as it is over, or as it is after so many seconds; None where there is none."""

        def is_over() -> bool:
            job = self._jobs.get(identity)
            return job is None or job.is_over

        with self._jobs.changed:
            self._jobs.changed.wait_for(is_over, seconds)
        return self.job(identity)

    def annotate(self, identity: str) -> Job | None:
        """Has the annotated video made, unless it is there. Raises Refused 409 where the job is not done, 429."""
        job = self._jobs.get(identity)
        if job is None or job.has_annotated or job.is_annotating:
            return None if job is None else self._shown(job)
        if job.state != "done":
            raise Refused(409, "the video is not done yet" if job.state != "failed" else f"it failed: {job.reason}")
        if len(self._looking.waiting) >= self._settings.queue:
            raise Refused(429, f"{self._settings.queue} videos wait already; try again later")
        changed = self._jobs.update(identity, is_annotating=True, annotate_reason="")
        self._looking.waiting.put(Task("annotate", identity))
        return None if changed is None else self._shown(changed)

    def file(self, identity: str, kind: str) -> Path | None:
        """`video` (what a browser plays, else the upload), `upload`, `annotated`, `csv`, `picture`; None if absent."""
        job = self._jobs.get(identity)
        if job is None:
            return None
        if kind == "video":
            kind = "preview" if job.has_preview else "upload"
        file = self._jobs.place(job.id) / FILES[kind]
        return file if file.is_file() else None

    def media_type(self, identity: str) -> str:
        """Of `file(identity, "video")`."""
        job = self._jobs.get(identity)
        own = job.media if job else ""
        return "video/mp4" if job and job.has_preview else own or "application/octet-stream"

    def tidy(self) -> None:
        """Removes what is past its time, and the oldest of what is too much."""
        most = round(self._settings.keep_gigabytes * 1e9)
        for identity in (*self._jobs.expired(), *self._jobs.oldest_over(most)):
            self._jobs.remove(identity)

    def _model(self, name: str) -> str:
        if not self._settings.models:
            raise Refused(422, NO_MODEL)
        if name and name not in self._settings.models:
            raise Refused(400, f"no model '{printable(name)[:MOST_NAME]}'; {nearest(name, self._settings.models)}")
        return name or self.default

    def _add(self, *, name: str, model: str, file: Path | None = None, address: str = "") -> Job:
        shown = printable(name)[:MOST_NAME] or "video"
        try:
            return self._jobs.add(name=shown, model=model, file=file, address=address)
        except (OSError, EnvironmentStopped) as error:
            log.error("a video could not be kept: %s", error)
            raise Refused(507, "the server has no room to keep the video; try again later") from None

    def _places(self) -> dict[str, int]:
        return self._fetching.waiting.places() | self._looking.waiting.places()

    def _shown(self, job: Job, places: Mapping[str, int] | None = None) -> Job:
        if job.state == "done":
            reached = (read_reached(self._jobs.place(job.id)) or 0.0) if job.is_annotating else 0.0
            return replace(job, progress=1.0, annotated_share=reached)
        if job.state == "decoding":
            return replace(job, progress=read_reached(self._jobs.place(job.id)) or 0.0)
        where = self._places() if places is None else places
        return replace(job, place=where.get(job.id, 0) if job.state == "queued" else 0)


@contextmanager
def open_engine(
    settings: ServeSettings,
    infer: InferSettings | None = None,
    *,
    clock: Callable[[], float] = time.time,
    work: Callable[[Mapping[str, Path], InferSettings, Path], WorkJob] = WorkJob,
) -> Iterator[Engine]:
    """Workers that work while the block runs; what is unfinished then is gone on with the next time.

    All models are opened once before it begins; without any it takes no videos, as a server of cameras does. `infer`
    says how they judge, as section `infer` does for reports; `work` is what worker processes do. Raises SettingsError,
    ArtefactRefused or EnvironmentStopped.
    """
    infer = infer or load_settings(InferSettings, "infer")
    if not settings.models and not settings.monitors:
        raise SettingsError(
            "nothing to serve: give a model (--model FOLDER) or the folder of a monitor (--monitor FOLDER)"
        )
    for folder in settings.models.values():
        read_source(folder)
    data = settings.data.absolute()
    for name in (JOBS, INCOMING, SCRATCH):
        check_writable(data / name / "file")
    said = f"another server works in {data}; stop it, or give this one a folder of its own (data)"
    with locked(data / "lock", or_say=said):
        for name in (INCOMING, SCRATCH):
            empty(data / name)
        jobs = Jobs(data / JOBS, keep_seconds=3600 * settings.keep_hours, clock=clock)
        looks, fetches = Waiting(), Waiting()
        looking = Looking(
            jobs,
            looks,
            work({name: folder.absolute() for name, folder in settings.models.items()}, infer, data / SCRATCH),
            default=next(iter(settings.models), ""),
            limit_seconds=settings.job_seconds,
            silence_seconds=infer.deadline_seconds,
        )
        rules = Rules(networks=tuple(map(str, (*settings.networks, *infer.download_networks))))
        limits = Limits(max_bytes=settings.max_bytes, seconds=settings.upload_seconds)
        fetching = Fetching(jobs, fetches, looks, rules, limits)
        imports, stop = preload(infer), threading.Event()
        hands = [Hand(looking, looks, stop, imports) for _ in range(settings.workers)]
        fetchers = [Hand(fetching, fetches, stop, imports, is_eager=False) for _ in range(FETCHERS)]
        staff = [*hands, *fetchers] if settings.models else []
        engine = Engine(settings, jobs, looking, fetching, hands if settings.models else [])
        go_on(jobs, looks, fetches)
        if staff:
            worker_context(imports)  # from this thread, which may be the one that hears Ctrl-C
        try:
            with _running([*(hand.run for hand in staff), lambda: _tidy(engine, stop)], stop, (looks, fetches)):
                if staff:
                    looking.checked.wait()
                if looking.problem is not None:
                    raise looking.problem
                yield engine
        finally:
            rest(jobs)


@contextmanager
def _running(work: Sequence[Callable[[], None]], stop: threading.Event, queues: Sequence[Waiting]) -> Iterator[None]:
    """A thread for each while the block runs; then they are told to stop, and waited for."""
    threads = [threading.Thread(target=each, daemon=True, name="serve") for each in work]
    try:
        for thread in threads:
            thread.start()
        yield
    finally:
        stop.set()
        for waiting in queues:
            waiting.close()
        for thread in threads:
            thread.join(STOP_SECONDS)


def preload(infer: InferSettings) -> tuple[str, ...]:
    """What the fork server imports once, which takes seconds, so that a worker takes none; never OpenVINO."""
    is_torch = infer.runtime == "torch" or find_spec("openvino") is None
    return (*PRELOAD, "torchvision.models") if is_torch else PRELOAD


def _tidy(engine: Engine, stop: threading.Event) -> None:
    while not stop.wait(TIDY_SECONDS):
        engine.tidy()


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
