"""Clips to raw features on a Ray cluster: the same stream of outcomes as on one machine, from many.

On a CPU each worker, an actor with one core, decodes and encodes one clip at a time. Where the cluster has GPUs,
workers decode, and an encoder for each GPU fetches batches of many clips' frames straight from them. Only features
come back here: whoever started the job writes all of the parts, so that no node needs to write anywhere.

Plain actors and not Ray Data: Ray Data gives a task back to the very actor that it killed, without end (a clip that
kills its worker was tried 15 times in 75 s, and the job never ended), or, with `max_errored_blocks`, drops it without
a word and may hang on the dead actor (ray-project/ray issue 62746). Here a clip that takes its worker with it is tried
on another, and after some attempts it is a failure of the ledger.
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
"""How long a cluster's head may take to answer; Ray itself would wait for minutes."""

CLIPS_PER_WORKER = 2
"""Clips that a worker has at a time: one in work, one at hand."""

_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # it would reach for the network
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about a change to come
    "RAY_DEDUP_LOGS": "1",
}


@dataclass(frozen=True)
class ActorLayout:
    """Who does what: with encoders, workers only decode."""

    workers: int | None = None
    """One a core of the cluster by default, nodes that come later included."""
    encoders: int = 0
    device: str = "cpu"
    """Of the encoders."""


def check_cluster(settings: RunSettings) -> str:
    """Where the job would run, in words. Raises SettingsError where Ray is missing or the settings do not fit it."""
    if find_spec("ray") is None:
        raise SettingsError("ray is not installed; pip install 'hazard-video[ray]', or use --engine local")
    if settings.device not in ("auto", "cpu", "cuda"):
        raise SettingsError(
            f"device '{settings.device}': with --engine ray choose auto, cpu or cuda; Ray shares out GPUs"
        )
    if settings.address and settings.address != "auto" and not re.fullmatch(r"[^/\s]+:\d{1,5}", settings.address):
        raise SettingsError(f"address '{settings.address}': give the cluster's head as host:port, or auto")
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
    """As `extract_clips`, on Ray. Nodes need this Python, these libraries, and the videos under the same path.

    Raises EnvironmentStopped where the cluster cannot be reached, or gives no worker for PATIENCE_SECONDS.
    """
    check_cluster(settings)
    with connect_ray(settings):
        import ray

        layout = layout or _choose_layout(settings)
        decode = DecodeJob(spec, with_thumbnails, windows)
        samples = [os.path.abspath(clip.file) for clip in (*clips[:1], *clips[-1:]) if clip.file.exists()]
        shipment = ray.put(_pack_job(decode) if layout.encoders else _pack_extract_job(decode, weights, settings))
        make_worker = ray.remote(ClipActor).options(num_cpus=1, scheduling_strategy="SPREAD").remote
        workers = ActorPool(
            lambda: make_worker(shipment, settings.deadline_seconds),
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
    """The cores that the cluster has for workers now."""
    import ray

    taken = layout.encoders if layout.device == "cpu" else 0
    return max(1, int(ray.cluster_resources().get("CPU", 0)) - taken)


def _make_encoder_pool(
    spec: FeatureSpec, weights: Path | None, settings: RunSettings, layout: ActorLayout
) -> ActorPool:
    import ray

    shipment = ray.put(_pack_job(EncodeJob(spec, None, settings.batch_size), weights=weights))
    options = {"num_cpus": 0, "num_gpus": 1} if layout.device == "cuda" else {"num_cpus": 1}
    make = ray.remote(EncoderActor).options(**options).remote
    return ActorPool(
        lambda: make(shipment, layout.device),
        lambda: layout.encoders,
        sample_files=[],
        tasks_per_actor=MAX_WAITING_BATCHES,
    )


def _pack_job(job: object, **files: Path | None) -> PackedJob:
    """A job and the files of its fields."""
    there = {key: path for key, path in files.items() if path is not None}
    return PackedJob(
        pickle.dumps(job),
        {path.name: path.read_bytes() for path in there.values()},
        {key: path.name for key, path in there.items()},
        job.preload if isinstance(job, DecodeJob | ExtractJob) else (),
    )


def _pack_extract_job(decode: DecodeJob, weights: Path | None, settings: RunSettings) -> PackedJob:
    if pick_runtime(settings.runtime, on_cpu=True) == "torch":
        return _pack_job(ExtractJob(decode, None, None, settings.batch_size), weights=weights)
    with tempfile.TemporaryDirectory() as folder:  # converted once: each node runs the very same network
        network = get_openvino_network(decode.spec, weights, Path(folder))
        shipment = _pack_job(ExtractJob(decode, None, network, settings.batch_size), converted=network)
        return replace(shipment, files={path.name: path.read_bytes() for path in Path(folder).iterdir()})


@contextmanager
def connect_ray(settings: RunSettings) -> Iterator[None]:
    """Ray, quiet: the cluster of the settings, or one of this machine's own that ends with the job."""
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
    """Raises EnvironmentStopped where there is no such cluster."""
    import ray

    if settings.address:  # the nodes run this very code, whatever they have installed
        where: dict[str, Any] = {
            "address": settings.address,
            "runtime_env": {"py_modules": [str(Path(features.__file__).parent)], "excludes": ["__pycache__"]},
        }
    else:
        where = {
            "address": "local",
            "num_cpus": settings.workers,
            "include_dashboard": False,
            "_temp_dir": folder,
        }
        if settings.device == "cpu":
            where["num_gpus"] = 0
    try:
        if settings.address and settings.address != "auto":
            host, _, port = settings.address.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_SECONDS).close()
        ray.init(**where, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:
        what = f"the Ray cluster at {settings.address} cannot be joined" if settings.address else "Ray did not start"
        raise RuntimeEnvironmentError(f"{what} ({format_ray_error(error)}); `ray start --head` starts one") from error


@contextmanager
def _preserve_signal_handlers() -> Iterator[None]:
    """Ray takes SIGTERM for itself; whoever runs the job keeps it."""
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)} if is_main else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
