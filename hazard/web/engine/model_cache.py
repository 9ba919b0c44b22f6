"""Models that a worker process holds open: the last few, each opened when it is first asked for."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from features.encoders.base import FrameEncoder
from features.encoders.factory import open_encoder
from features.extraction.jobs import DecodeJob, ExtractJob
from features.types import Clip
from hazard.inference.recognizer import Recognizer, open_recognizer
from hazard.inference.settings import InferSettings
from hazard.inference.windowing import choose_windows
from hazard.models.input_spec import MODEL_JSON, check_model_spec, find_model_weights, read_input_spec
from hazard.web.engine.model_facts import ModelFacts

MAX_OPEN_MODELS = 3
"""Models that are held; each is about as large as its backbone."""
HEARTBEAT_SECONDS = 1.0


@dataclass
class CountingEncoder:
    """What stands between the decoder and the encoder: it tells how many rows were encoded."""

    encoder: FrameEncoder
    on_encoded: Callable[[int], None] = lambda rows: None

    @property
    def batch_size(self) -> int:
        """The encoder's own."""
        return self.encoder.batch_size

    def encode(self, frames: Any) -> Any:
        """As the encoder does."""
        features = self.encoder.encode(frames)
        self.on_encoded(len(frames))
        return features


@dataclass(frozen=True)
class OpenModelJob(ExtractJob):
    """An extraction whose backbone is open already."""

    counting_encoder: CountingEncoder | None = None

    def encoder(self) -> FrameEncoder:
        """The open one."""
        return self.counting_encoder  # type: ignore[return-value]


@dataclass(frozen=True)
class OpenModel:
    """A model and its backbone, ready to look at clips."""

    facts: ModelFacts
    recognizer: Recognizer
    decoder: DecodeJob
    counting_encoder: CountingEncoder
    analyse: Callable[[Clip, Callable[[], None]], Any]


class ModelCache:
    """The models of the settings, by name."""

    def __init__(self, folders: Mapping[str, Path], infer: InferSettings, scratch: Path) -> None:
        self._folders, self._infer, self._scratch = folders, infer, scratch
        self._open_models: OrderedDict[str, OpenModel] = OrderedDict()

    def get(self, name: str, report_alive: Callable[[], None]) -> OpenModel:
        """Raises SettingsError, ArtefactRefused or EnvironmentStopped where it cannot be opened."""
        if name not in self._open_models:
            while len(self._open_models) >= MAX_OPEN_MODELS:
                self._open_models.popitem(last=False)
            with send_heartbeats(report_alive):
                self._open_models[name] = self._open_model(name)
        self._open_models.move_to_end(name)
        return self._open_models[name]

    def _open_model(self, name: str) -> OpenModel:
        folder = self._folders[name]
        source = read_input_spec(folder)
        check_model_spec(source.spec)
        windows = choose_windows(source, self._infer)
        weights = find_model_weights(source.spec, self._infer.weights, hint=source.weights_file)
        decoder = DecodeJob(source.spec, with_thumbnails=True, windows=windows)
        decoder.configure_libraries(
            with_torch=True
        )  # before the backbone is built: threads change the last bits of its numbers
        judge = open_recognizer(folder, self._infer, stride_seconds=windows.stride_seconds)
        with open_encoder(source.spec, weights, self._infer, scratch=self._scratch) as encoder:
            counted = CountingEncoder(encoder)
        facts = ModelFacts(
            name=name,
            labels=judge.decision.labels,
            positive_label=judge.decision.positive_label,
            threshold=judge.decision.threshold,
            window_seconds=windows.window_seconds,
            backbone=source.spec.backbone,
            created=datetime.fromtimestamp((folder / MODEL_JSON).stat().st_mtime, UTC),
        )
        return OpenModel(
            facts, judge, decoder, counted, OpenModelJob(decoder, weights, None, counting_encoder=counted).start()
        )


@contextmanager
def send_heartbeats(report_alive: Callable[[], None]) -> Iterator[None]:
    """Says that this process lives while it does what says nothing, such as opening a model."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(HEARTBEAT_SECONDS):
            report_alive()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()
