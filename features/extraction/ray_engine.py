"""The Ray engine: clips to raw features on a Ray cluster, with the same outcomes as the local engine.

On a CPU each worker is an actor with one core that decodes and encodes one clip at a time. If the cluster has GPUs,
workers only decode, and an encoder for each GPU fetches batches of frames of many clips directly from them. Only
features come back: the process that started the job writes all parts, so that no node needs to write.

Plain actors are used instead of Ray Data. Ray Data returns a task to the actor that it killed, without end: a clip that
killed its worker was tried 15 times in 75 s, and the job never ended. With `max_errored_blocks` it drops the task
silently and may hang on the dead actor (ray-project/ray issue 62746). Here a clip that kills its worker is tried on
another worker, and after MAX_ATTEMPTS attempts it is recorded as failed.
"""

import logging
import os
import pickle
import re
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import features
from features.config import RunSettings
from features.encoders.openvino_cache import get_openvino_network
from features.encoders.openvino_encoder import pick_runtime
from features.errors import RuntimeEnvironmentError, SettingsError
from features.extraction.jobs import DecodeJob, ExtractJob
from features.extraction.local_engine import MAX_WAITING_BATCHES
from features.extraction.ray_actor_pool import ActorPool, format_ray_error
from features.extraction.ray_actors import ClipActor, EncodeJob, EncoderActor, PackedJob
from features.extraction.ray_scheduler import Scheduler
from features.spec import FeatureSpec
from features.types import Clip, Outcome
from features.video.windows import Windowing

CONNECT_TIMEOUT_SECONDS = 10.0
"""Seconds within which the head of a cluster must answer. Ray itself would wait for minutes."""

CLIPS_PER_WORKER = 2
"""Clips that a worker has at a time: one in work, one waiting."""

_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry over the network
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about a future change
    "RAY_DEDUP_LOGS": "1",
}


@dataclass(frozen=True)
class ActorLayout:
    """The numbers of actors. If there are encoders, workers only decode."""

    workers: int | None = None
    """Number of workers; by default one per core of the cluster, including nodes that join later."""
    encoders: int = 0
    device: str = "cpu"
    """Device of the encoders."""


def check_cluster(settings: RunSettings) -> str:
    """Return a text that says where the job runs. Raises SettingsError if Ray is missing or a setting does not fit."""
    if find_spec("ray") is None:
        raise SettingsError("ray is not installed; pip install ray, or use --engine local")
    if settings.device not in ("auto", "cpu", "cuda"):
        raise SettingsError(
            f"device '{settings.device}': with --engine ray choose auto, cpu or cuda; Ray assigns the GPUs"
        )
    if settings.address and settings.address != "auto" and not re.fullmatch(r"[^/\s]+:\d{1,5}", settings.address):
        raise SettingsError(
            f"address '{settings.address}' is not valid; give the head of the cluster as host:port, or auto"
        )
    pick_runtime(settings.runtime, on_cpu=settings.device != "cuda")
    return f"the Ray cluster at {settings.address}" if settings.address else "Ray on this machine"


def extract_on_cluster(
    clips: Sequence[Clip],
    spec: FeatureSpec,
    weights: Path | None,
    settings: RunSettings,
    *,
    with_thumbnails: bool = False,
    windows: Windowing | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
    layout: ActorLayout | None = None,
) -> Iterator[Outcome]:
    """Yield outcomes as `extract_clips` does, from workers on Ray.

    Nodes need the same Python, the same libraries, and the videos under the same path. Raises RuntimeEnvironmentError
    if the cluster cannot be reached or gives no worker for NO_WORKER_TIMEOUT_SECONDS.
    """
    check_cluster(settings)
    with connect_ray(settings):
        import ray

        layout = layout or _choose_layout(settings)
        decode = DecodeJob(spec, with_thumbnails, windows)
        samples = [os.path.abspath(clip.file) for clip in (*clips[:1], *clips[-1:]) if clip.file.exists()]
        packed_job = ray.put(_pack_job(decode) if layout.encoders else _pack_extract_job(decode, weights, settings))
        make_worker = ray.remote(ClipActor).options(num_cpus=1, scheduling_strategy="SPREAD").remote
        workers = ActorPool(
            lambda: make_worker(packed_job, settings.deadline_seconds),
            lambda: min(layout.workers or _count_worker_cores(layout), len(clips)),
            sample_files=samples,
            tasks_per_actor=CLIPS_PER_WORKER,
        )
        encoders = _make_encoder_pool(spec, weights, settings, layout) if layout.encoders else None
        yield from Scheduler(clips, workers, encoders).run(is_stopped)


def _choose_layout(settings: RunSettings) -> ActorLayout:
    import ray

    gpus = int(ray.cluster_resources().get("GPU", 0))
    if settings.device == "cuda" and not gpus:
        raise SettingsError("device 'cuda': the Ray cluster has no GPU; use --device cpu or auto")
    if settings.device == "cpu" or not gpus:
        return ActorLayout(settings.workers)
    pick_runtime(settings.runtime, on_cpu=False)
    return ActorLayout(settings.workers, encoders=gpus, device="cuda")


def _count_worker_cores(layout: ActorLayout) -> int:
    """Return the cores that the cluster has for workers at the moment, at least 1."""
    import ray

    encoder_cores = layout.encoders if layout.device == "cpu" else 0
    return max(1, int(ray.cluster_resources().get("CPU", 0)) - encoder_cores)


def _make_encoder_pool(
    spec: FeatureSpec, weights: Path | None, settings: RunSettings, layout: ActorLayout
) -> ActorPool:
    import ray

    packed_job = ray.put(_pack_job(EncodeJob(spec, None, settings.batch_size), weights=weights))
    options = {"num_cpus": 0, "num_gpus": 1} if layout.device == "cuda" else {"num_cpus": 1}
    make_encoder = ray.remote(EncoderActor).options(**options).remote
    return ActorPool(
        lambda: make_encoder(packed_job, layout.device),
        lambda: layout.encoders,
        sample_files=[],
        tasks_per_actor=MAX_WAITING_BATCHES,
    )


def _pack_job(job: object, **files: Path | None) -> PackedJob:
    """Pack a job together with the files of its fields. A file that is None is left out."""
    present = {key: path for key, path in files.items() if path is not None}
    return PackedJob(
        pickle.dumps(job),
        {path.name: path.read_bytes() for path in present.values()},
        {key: path.name for key, path in present.items()},
        job.preload if isinstance(job, DecodeJob | ExtractJob) else (),
    )


def _pack_extract_job(decode: DecodeJob, weights: Path | None, settings: RunSettings) -> PackedJob:
    if pick_runtime(settings.runtime, on_cpu=True) == "torch":
        return _pack_job(ExtractJob(decode, None, None, settings.batch_size), weights=weights)
    with tempfile.TemporaryDirectory() as folder:  # converted once, so that each node runs the same network
        network = get_openvino_network(decode.spec, weights, Path(folder))
        packed_job = _pack_job(ExtractJob(decode, None, network, settings.batch_size), converted=network)
        return replace(packed_job, files={path.name: path.read_bytes() for path in Path(folder).iterdir()})


@contextmanager
def connect_ray(settings: RunSettings) -> Iterator[None]:
    """Connect to the Ray cluster of the settings, or start Ray on this machine until the block ends. Silences Ray."""
    for name, value in _RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    folder = tempfile.mkdtemp(prefix="ray-")
    try:
        with _preserve_signal_handlers():
            _init_ray(settings, folder)
        yield
    finally:
        with _preserve_signal_handlers():
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


def _init_ray(settings: RunSettings, folder: str) -> None:
    """Initialise Ray. Raises RuntimeEnvironmentError if the cluster cannot be joined or Ray does not start."""
    import ray

    if settings.address:  # the nodes run this code, not an installed version
        options: dict[str, Any] = {
            "address": settings.address,
            "runtime_env": {"py_modules": [str(Path(features.__file__).parent)], "excludes": ["__pycache__"]},
        }
    else:
        options = {
            "address": "local",
            "num_cpus": settings.workers,
            "include_dashboard": False,
            "_temp_dir": folder,
        }
        if settings.device == "cpu":
            options["num_gpus"] = 0
    try:
        if settings.address and settings.address != "auto":
            host, _, port = settings.address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_SECONDS).close()
        ray.init(**options, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:
        problem = f"the Ray cluster at {settings.address} cannot be joined" if settings.address else "Ray did not start"
        raise RuntimeEnvironmentError(
            f"{problem} ({format_ray_error(error)}); `ray start --head` starts one"
        ) from error


@contextmanager
def _preserve_signal_handlers() -> Iterator[None]:
    """Restore the handlers of SIGTERM and SIGINT, which Ray replaces with its own."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)} if is_main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
