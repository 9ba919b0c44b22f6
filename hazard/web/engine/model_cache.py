"""Models that a worker process holds open: the last few, each opened when it is first asked for."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.encoders.base import Encoder
from features.encoders.factory import open_encoder
from features.extraction.jobs import DecodeJob, ExtractJob
from features.types import Clip
from hazard.inference.recognizer import Judge, open_judge
from hazard.inference.settings import InferSettings
from hazard.inference.windowing import windows_of
from hazard.models.input_spec import MODEL_JSON, check_spec, model_weights, read_source
from hazard.web.engine.model_facts import ModelFacts

MOST = 3
"""Models that are held; each is about as large as its backbone."""
BEAT_SECONDS = 1.0


@dataclass
class Counted:
    """What stands between the decoder and the encoder: it tells how many rows were encoded."""

    encoder: Encoder
    told: Callable[[int], None] = lambda rows: None

    @property
    def batch_size(self) -> int:
        """The encoder's own."""
        return self.encoder.batch_size

    def encode(self, frames: Any) -> Any:
        """As the encoder does."""
        features = self.encoder.encode(frames)
        self.told(len(frames))
        return features


@dataclass(frozen=True)
class OpenJob(ExtractJob):
    """An extraction whose backbone is open already."""

    counted: Counted | None = None

    def encoder(self) -> Encoder:
        """The open one."""
        return self.counted  # type: ignore[return-value]


@dataclass(frozen=True)
class Opened:
    """A model and its backbone, ready to look at clips."""

    facts: ModelFacts
    judge: Judge
    decoder: DecodeJob
    counted: Counted
    look: Callable[[Clip, Callable[[], None]], Any]


class Models:
    """The models of the settings, by name."""

    def __init__(self, folders: Mapping[str, Path], infer: InferSettings, scratch: Path) -> None:
        self._folders, self._infer, self._scratch = folders, infer, scratch
        self._open: OrderedDict[str, Opened] = OrderedDict()

    def get(self, name: str, alive: Callable[[], None]) -> Opened:
        """Raises SettingsError, ArtefactRefused or EnvironmentStopped where it cannot be opened."""
        if name not in self._open:
            while len(self._open) >= MOST:
                self._open.popitem(last=False)
            with beating(alive):
                self._open[name] = self._opened(name)
        self._open.move_to_end(name)
        return self._open[name]

    def _opened(self, name: str) -> Opened:
        folder = self._folders[name]
        source = read_source(folder)
        check_spec(source.spec)
        windows = windows_of(source, self._infer)
        weights = model_weights(source.spec, self._infer.weights, hint=source.weights_file)
        decoder = DecodeJob(source.spec, with_pictures=True, windows=windows)
        decoder.quieten(with_torch=True)  # before the backbone is built: threads change the last bits of its numbers
        judge = open_judge(folder, self._infer, stride_seconds=windows.stride_seconds)
        with open_encoder(source.spec, weights, self._infer, scratch=self._scratch) as encoder:
            counted = Counted(encoder)
        facts = ModelFacts(
            name=name,
            labels=judge.decision.labels,
            positive_label=judge.decision.positive_label,
            threshold=judge.decision.threshold,
            window_seconds=windows.window_seconds,
            backbone=source.spec.backbone,
            created=datetime.fromtimestamp((folder / MODEL_JSON).stat().st_mtime, UTC),
        )
        return Opened(facts, judge, decoder, counted, OpenJob(decoder, weights, None, counted=counted).start())


@contextmanager
def beating(alive: Callable[[], None]) -> Iterator[None]:
    """Says that this process lives while it does what says nothing, such as opening a model."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(BEAT_SECONDS):
            alive()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
