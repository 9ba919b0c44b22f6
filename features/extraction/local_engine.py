"""Clips to raw features as they come: the one path that extraction, inference and monitoring share.

On a CPU each worker process decodes and encodes with one thread. On GPUs workers only decode, and this process feeds
each GPU with large batches of many clips' frames from a thread of its own: decoding, copying and computing overlap.
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
from features.encoders.base import Encoder
from features.encoders.factory import check_devices
from features.encoders.openvino_cache import kept_network
from features.errors import ClipError
from features.extraction.jobs import Decoded, DecodeJob, ExtractJob, tracks_of
from features.spec import FeatureSpec
from features.types import Clip, Failure, Outcome, Unchanged
from features.utils.file_identity import size_and_time
from features.utils.worker_pool import Lost, cores, run_tasks
from features.video.windows import Windows

BATCHES_AHEAD = 2
"""How many batches may wait for each GPU."""


def extract_clips(
    clips: Sequence[Clip],
    spec: FeatureSpec,
    weights: Path | None,
    settings: RunSettings,
    *,
    with_pictures: bool = False,
    windows: Windows | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Raw, unreduced features of each clip, or its failure, in the order they finish; long ones are cut if asked."""
    devices, runtime = check_devices(settings)
    decode = DecodeJob(spec, with_pictures, windows)
    with ExitStack() as stack:
        if devices == ["cpu"]:
            converted = None
            if runtime == "openvino":
                converted = kept_network(spec, weights, Path(stack.enter_context(tempfile.TemporaryDirectory())))
            job: ExtractJob | DecodeJob = ExtractJob(decode, weights, converted, settings.batch_size)
        else:
            job = decode
        results = run_tasks(
            job,
            clips,
            workers=min(settings.workers or cores(), len(clips)),
            deadline_seconds=settings.deadline_seconds,
            is_stopped=is_stopped,
            preload=job.preload,
        )
        named = (failure_of(clip, r) if isinstance(r, Lost) else r for clip, r in results)
        if devices == ["cpu"]:
            yield from named  # type: ignore[misc]
        else:
            from features.encoders.torch_encoder import build_encoder

            encoders = [build_encoder(spec, weights, device=d, batch_size=settings.batch_size) for d in devices]
            yield from encode_batches(named, encoders)  # type: ignore[arg-type]


def encode_batches(results: Iterable[Decoded | Failure | Unchanged], encoders: Sequence[Encoder]) -> Iterator[Outcome]:
    """Encodes frames of many clips in one batch, in turn on each encoder, and hands each clip its own rows."""
    pending: deque[Future[list[Outcome]]] = deque()
    waiting: list[Decoded] = []
    with ExitStack() as stack:
        threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in encoders]
        turns = cycle(zip(threads, encoders, strict=True))
        thread, encoder = next(turns)
        for result in results:
            if not isinstance(result, Decoded):
                yield result
                continue
            waiting.append(result)
            if sum(_rows(decoded) for decoded in waiting) >= encoder.batch_size:
                pending.append(thread.submit(encode_together, waiting, encoder))
                waiting = []
                thread, encoder = next(turns)
            while len(pending) > BATCHES_AHEAD * len(encoders) or (pending and pending[0].done()):
                yield from pending.popleft().result()
        if waiting:
            pending.append(thread.submit(encode_together, waiting, encoder))
        for future in pending:
            yield from future.result()


def encode_together(clips: Sequence[Decoded], encoder: Encoder) -> list[Outcome]:
    """The outcomes of clips whose frames go through the backbone as one batch; a clip that spoils it fails alone."""
    began = time.process_time()
    views = [view for decoded in clips for view in decoded.views]
    try:
        features = encoder.encode(np.concatenate([view.frames for view in views]))
    except ClipError as error:
        if len(clips) == 1:
            return [Failure(clips[0].clip, error.stage, error.reason)]
        return [outcome for decoded in clips for outcome in encode_together([decoded], encoder)]
    pieces = iter(np.split(features, np.cumsum([len(view.frames) for view in views])[:-1]))
    share = (time.process_time() - began) / len(clips)
    return [tracks_of(decoded, list(islice(pieces, len(decoded.views))), share) for decoded in clips]


def _rows(decoded: Decoded) -> int:
    return sum(len(view.frames) for view in decoded.views)


def failure_of(clip: Clip, lost: Lost) -> Failure:
    """With its file's size and time, by which a later run knows that it need not be tried again."""
    try:
        size_bytes, mtime_ns = size_and_time(clip.file)
    except OSError:
        return Failure(clip, lost.stage, lost.reason)
    return Failure(replace(clip, size_bytes=size_bytes, mtime_ns=mtime_ns), lost.stage, lost.reason)
