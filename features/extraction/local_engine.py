"""The local engine: clips to raw features on this machine. Extraction and inference share it.

On a CPU each worker process decodes and encodes with one thread. With GPUs the workers only decode, and this process
feeds each GPU, from its own thread, with large batches of frames of many clips: decoding, copying and computing
overlap.
"""

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from features.config import RunSettings
from features.encoders.base import FrameEncoder
from features.encoders.factory import check_devices
from features.encoders.openvino_cache import get_openvino_network
from features.errors import ClipError
from features.extraction.jobs import DecodedClip, DecodeJob, ExtractJob, make_extracted_clip
from features.spec import FeatureSpec
from features.types import Clip, Failure, Outcome, UnchangedClip
from features.utils.file_identity import read_size_and_mtime
from features.utils.worker_pool import LostTask, count_cores, run_tasks
from features.video.windows import Windowing

MAX_WAITING_BATCHES = 2
"""Batches that may wait for each GPU."""


def extract_clips(
    clips: Sequence[Clip],
    spec: FeatureSpec,
    weights: Path | None,
    settings: RunSettings,
    *,
    with_thumbnails: bool = False,
    windows: Windowing | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Yield the raw, unreduced features of each clip, or its failure, in the order in which they finish.

    Long videos are split into `windows` if these are given.
    """
    devices, runtime = check_devices(settings)
    decode = DecodeJob(spec, with_thumbnails, windows)
    with ExitStack() as stack:
        if devices == ["cpu"]:
            converted = None
            if runtime == "openvino":
                converted = get_openvino_network(
                    spec, weights, Path(stack.enter_context(tempfile.TemporaryDirectory()))
                )
            job: ExtractJob | DecodeJob = ExtractJob(decode, weights, converted, settings.batch_size)
        else:
            job = decode
        results = run_tasks(
            job,
            clips,
            workers=min(settings.workers or count_cores(), len(clips)),
            deadline_seconds=settings.deadline_seconds,
            is_stopped=is_stopped,
            preload=job.preload,
        )
        outcomes = (make_failure(clip, r) if isinstance(r, LostTask) else r for clip, r in results)
        if devices == ["cpu"]:
            yield from outcomes  # type: ignore[misc]
        else:
            from features.encoders.torch_encoder import build_encoder

            encoders = [build_encoder(spec, weights, device=d, batch_size=settings.batch_size) for d in devices]
            yield from encode_batches(outcomes, encoders)  # type: ignore[arg-type]


def encode_batches(
    results: Iterable[DecodedClip | Failure | UnchangedClip], encoders: Sequence[FrameEncoder]
) -> Iterator[Outcome]:
    """Encode the frames of many clips per batch, on each encoder in turn, and yield each clip with its own rows."""
    pending: deque[Future[list[Outcome]]] = deque()
    waiting: list[DecodedClip] = []
    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in encoders]
        turns = cycle(zip(threads, encoders, strict=True))
        thread, encoder = next(turns)
        for result in results:
            if not isinstance(result, DecodedClip):
                yield result
                continue
            waiting.append(result)
            if sum(_count_rows(decoded) for decoded in waiting) >= encoder.batch_size:
                pending.append(thread.submit(encode_clips, waiting, encoder))
                waiting = []
                thread, encoder = next(turns)
            while len(pending) > MAX_WAITING_BATCHES * len(encoders) or (pending and pending[0].done()):
                yield from pending.popleft().result()
        if waiting:
            pending.append(thread.submit(encode_clips, waiting, encoder))
        for future in pending:
            yield from future.result()


def encode_clips(clips: Sequence[DecodedClip], encoder: FrameEncoder) -> list[Outcome]:
    """Encode the frames of several clips as one batch. If it fails, encode each clip alone, so only bad clips fail."""
    began = time.process_time()
    views = [view for decoded in clips for view in decoded.views]
    try:
        features = encoder.encode(np.concatenate([view.frames for view in views]))
    except ClipError as error:
        if len(clips) == 1:
            return [Failure(clips[0].clip, error.stage, error.reason)]
        return [outcome for decoded in clips for outcome in encode_clips([decoded], encoder)]
    pieces = iter(np.split(features, np.cumsum([len(view.frames) for view in views])[:-1]))
    share = (time.process_time() - began) / len(clips)
    return [make_extracted_clip(decoded, list(islice(pieces, len(decoded.views))), share) for decoded in clips]


def _count_rows(decoded: DecodedClip) -> int:
    return sum(len(view.frames) for view in decoded.views)


def make_failure(clip: Clip, lost: LostTask) -> Failure:
    """Return the failure of a lost task, with the size and time of the file, so that a later run can skip the clip."""
    try:
        size_bytes, mtime_ns = read_size_and_mtime(clip.file)
    except OSError:
        return Failure(clip, lost.stage, lost.reason)
    return Failure(replace(clip, size_bytes=size_bytes, mtime_ns=mtime_ns), lost.stage, lost.reason)
