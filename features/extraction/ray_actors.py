"""What runs on the nodes of a Ray cluster: workers that decode (and, on a CPU, encode), and encoders for GPUs.

A worker's own process stays small: the libraries that decode and encode live in the process that it watches, through
the same `run_tasks` as on one machine. A clip that hangs or crashes its decoder is therefore one failure here too. What
travels is pickled by us, between processes of one job, so that the small process need not know what it passes on.
"""

import os
import pickle
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import RuntimeEnvironmentError
from features.utils.worker_pool import run_tasks

if TYPE_CHECKING:  # heavy: a worker's own process does without
    from features.encoders.base import FrameEncoder
    from features.spec import FeatureSpec


@dataclass(frozen=True)
class PackedJob:
    """A job for `run_tasks` with the files that it opens: on a node it needs this project and the videos, no more.

    It is unpickled, with all that it imports, by the worker process alone.
    """

    job: bytes  # pickled
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Weights, or a converted network, by name."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Which field of the job is which of the files."""
    preload: Sequence[str] = ()
    """What its worker processes import before they part."""

    @contextmanager
    def unpack(self) -> Iterator[Any]:
        """The job, its files in a folder that goes when the block ends: a killed actor leaves nothing behind."""
        with tempfile.TemporaryDirectory(prefix="features-") as folder:
            for name, content in self.files.items():
                (Path(folder) / name).write_bytes(content)
            yield replace(pickle.loads(self.job), **{key: Path(folder) / name for key, name in self.paths.items()})  # noqa: S301

    def start(self) -> Callable[[bytes, Callable[[], None]], tuple[int, bytes]]:
        """Tasks and results are pickled; a result comes with its rows that still wait for an encoder."""
        with self.unpack() as job:
            work = job.start()

        def do(task: bytes, alive: Callable[[], None]) -> tuple[int, bytes]:
            result = work(pickle.loads(task), alive)  # noqa: S301
            return _count_rows_to_encode(result), pickle.dumps(result)

        return do


@dataclass(frozen=True)
class EncodeJob:
    """Encodes what others decode."""

    spec: "FeatureSpec"
    weights: Path | None
    batch_size: int | None

    def encoder(self, device: str) -> "FrameEncoder":
        """Loads the backbone."""
        from features.encoders.torch_encoder import build_encoder

        return build_encoder(self.spec, self.weights, device=device, batch_size=self.batch_size)


class ClipActor:
    """An actor that gives one clip at a time to a process of its own."""

    def __init__(self, shipment: PackedJob, deadline_seconds: float) -> None:
        self._task = b""
        self._results = run_tasks(
            shipment, self._iterate_tasks(), workers=1, deadline_seconds=deadline_seconds, preload=shipment.preload
        )

    def set_up(self, samples: Sequence[str]) -> int:
        """0. Raises EnvironmentStopped where one of the samples, files that the job's own machine has, is not here."""
        for path in samples:
            if not os.path.exists(path):
                raise RuntimeEnvironmentError(
                    f"node {socket.gethostname()} does not see {path}, which is there on the machine that started the "
                    "job; mount the videos on every node under the same path"
                )
        return 0

    def work(self, task: bytes) -> tuple[int, bytes]:
        """(0, what became of the clip), or (rows, nothing yet) and the frames with `work_for_encoder`."""
        self._task = task
        _, result = next(self._results)
        return result if isinstance(result, tuple) else (0, pickle.dumps(result))

    def work_for_encoder(self, task: bytes) -> tuple[tuple[int, bytes], bytes]:
        """As `work`, the frames apart: they stay on this node until an encoder fetches them."""
        rows, content = self.work(task)
        return ((rows, b""), content) if rows else ((0, content), b"")

    def _iterate_tasks(self) -> Iterator[bytes]:
        while True:
            yield self._task


class EncoderActor:
    """An actor that encodes frames of many clips in one batch."""

    def __init__(self, shipment: PackedJob, device: str) -> None:
        self._shipment, self._device = shipment, device

    def set_up(self, samples: Sequence[str]) -> int:
        """Loads the backbone; the rows that make a batch. Raises EnvironmentStopped where the GPU is not to be used."""
        import torch

        if self._device == "cuda" and not torch.cuda.is_available():
            raise RuntimeEnvironmentError(
                f"node {socket.gethostname()} has a GPU for Ray, but PyTorch sees none there; mend its driver, install "
                "a CUDA build of torch, or use --device cpu"
            )
        with self._shipment.unpack() as job:
            self._encoder = job.encoder(self._device)
        return int(self._encoder.batch_size)

    def work(self, *decoded: bytes) -> bytes:
        """The outcomes of decoded clips."""
        from features.extraction.local_engine import encode_clips

        return pickle.dumps(encode_clips([pickle.loads(content) for content in decoded], self._encoder))  # noqa: S301


def _count_rows_to_encode(result: object) -> int:
    from features.extraction.jobs import DecodedClip

    return sum(len(view.frames) for view in result.views) if isinstance(result, DecodedClip) else 0
