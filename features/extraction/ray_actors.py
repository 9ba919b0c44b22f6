"""Ray actors: workers that decode (and, on a CPU, encode), and encoders for GPUs.

The actor process of a worker stays small. The libraries that decode and encode are loaded in a child process, which it
watches with the same `run_tasks` as on one machine. A clip that hangs or crashes its decoder is therefore one failure
here too. Tasks and results are pickled by this project, between processes of one job, so that the small process need
not import their types.
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

if TYPE_CHECKING:  # slow to import, and not needed in the actor process of a worker
    from features.encoders.base import FrameEncoder
    from features.spec import FeatureSpec


@dataclass(frozen=True)
class PackedJob:
    """A job for `run_tasks` with the files that it opens. A node needs only this project and the videos.

    Only the worker process unpickles it, with all that it imports.
    """

    job: bytes  # pickled
    files: Mapping[str, bytes] = field(default_factory=dict)
    """The bytes of the weights or of a converted network, by file name."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """The file name for each field of the job that holds a path."""
    preload: Sequence[str] = ()
    """Modules that are imported once, before the worker processes are forked."""

    @contextmanager
    def unpack(self) -> Iterator[Any]:
        """Return the job with its files in a temporary folder, which is removed when the block ends.

        The block is short, so that an actor that is killed later leaves no files behind.
        """
        with tempfile.TemporaryDirectory(prefix="features-") as folder:
            for name, content in self.files.items():
                (Path(folder) / name).write_bytes(content)
            yield replace(pickle.loads(self.job), **{key: Path(folder) / name for key, name in self.paths.items()})  # noqa: S301

    def start(self) -> Callable[[bytes, Callable[[], None]], tuple[int, bytes]]:
        """Start the job and return a function of a pickled task.

        The function returns the rows that an encoder still has to encode, and the pickled result.
        """
        with self.unpack() as job:
            work = job.start()

        def run_task(task: bytes, report_alive: Callable[[], None]) -> tuple[int, bytes]:
            result = work(pickle.loads(task), report_alive)  # noqa: S301
            return _count_rows_to_encode(result), pickle.dumps(result)

        return run_task


@dataclass(frozen=True)
class EncodeJob:
    """Encodes frames that workers decoded."""

    spec: "FeatureSpec"
    weights: Path | None
    batch_size: int | None

    def make_encoder(self, device: str) -> "FrameEncoder":
        """Return an encoder of the backbone on a device."""
        from features.encoders.torch_encoder import build_encoder

        return build_encoder(self.spec, self.weights, device=device, batch_size=self.batch_size)


class ClipActor:
    """A worker: an actor that passes one clip at a time to its own child process."""

    def __init__(self, packed_job: PackedJob, deadline_seconds: float) -> None:
        self._task = b""
        self._results = run_tasks(
            packed_job, self._iterate_tasks(), workers=1, deadline_seconds=deadline_seconds, preload=packed_job.preload
        )

    def set_up(self, samples: Sequence[str]) -> int:
        """Check that the sample files exist on this node and return 0, the rows of a batch.

        Raises RuntimeEnvironmentError if one of them does not exist.
        """
        for path in samples:
            if not os.path.exists(path):
                raise RuntimeEnvironmentError(
                    f"node {socket.gethostname()} does not see {path}, which exists on the machine that started the "
                    "job; mount the videos on every node under the same path"
                )
        return 0

    def work(self, task: bytes) -> tuple[int, bytes]:
        """Process a pickled clip. Returns the rows that still have to be encoded, and the pickled result."""
        self._task = task
        _, result = next(self._results)
        return result if isinstance(result, tuple) else (0, pickle.dumps(result))

    def work_for_encoder(self, task: bytes) -> tuple[tuple[int, bytes], bytes]:
        """Process a pickled clip as `work` does, but return frames separately, as a second result.

        They stay on this node until an encoder fetches them.
        """
        rows, content = self.work(task)
        return ((rows, b""), content) if rows else ((0, content), b"")

    def _iterate_tasks(self) -> Iterator[bytes]:
        while True:
            yield self._task


class EncoderActor:
    """An encoder: an actor that encodes frames of many clips as one batch."""

    def __init__(self, packed_job: PackedJob, device: str) -> None:
        self._packed_job, self._device = packed_job, device

    def set_up(self, samples: Sequence[str]) -> int:
        """Load the backbone and return the rows of a batch. Raises RuntimeEnvironmentError if the GPU is not usable."""
        import torch

        if self._device == "cuda" and not torch.cuda.is_available():
            raise RuntimeEnvironmentError(
                f"Ray sees a GPU on node {socket.gethostname()}, but PyTorch sees none; fix its driver, "
                "install a CUDA build of torch, or use --device cpu"
            )
        with self._packed_job.unpack() as job:
            self._encoder = job.make_encoder(self._device)
        return int(self._encoder.batch_size)

    def work(self, *decoded: bytes) -> bytes:
        """Encode pickled decoded clips as one batch and return their pickled outcomes."""
        from features.extraction.local_engine import encode_clips

        return pickle.dumps(encode_clips([pickle.loads(content) for content in decoded], self._encoder))  # noqa: S301


def _count_rows_to_encode(result: object) -> int:
    from features.extraction.jobs import DecodedClip

    return sum(len(view.frames) for view in result.views) if isinstance(result, DecodedClip) else 0
