"""The models that a worker process keeps open: the most recently used, each opened when first needed."""

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
"""The number of models kept open. Each takes about as much memory as its backbone."""
HEARTBEAT_SECONDS = 1.0


@dataclass
class CountingEncoder:
    """An encoder that reports how many rows it has encoded."""

    encoder: FrameEncoder
    on_encoded: Callable[[int], None] = lambda rows: None

    @property
    def batch_size(self) -> int:
        """The batch size of the encoder."""
        return self.encoder.batch_size

    def encode(self, frames: Any) -> Any:
        """Encode frames and report their number to `on_encoded`."""
        features = self.encoder.encode(frames)
        self.on_encoded(len(frames))
        return features


@dataclass(frozen=True)
class OpenModelJob(ExtractJob):
    """An extraction job whose backbone is already open."""

    counting_encoder: CountingEncoder | None = None

    def make_encoder(self) -> FrameEncoder:
        """Return the open encoder."""
        return self.counting_encoder  # type: ignore[return-value]


@dataclass(frozen=True)
class OpenModel:
    """A model and its backbone, ready to analyse clips."""

    facts: ModelFacts
    recognizer: Recognizer
    decoder: DecodeJob
    counting_encoder: CountingEncoder
    analyse: Callable[[Clip, Callable[[], None]], Any]


class ModelCache:
    """The open models, by name. The least recently used one is closed first."""

    def __init__(self, folders: Mapping[str, Path], infer: InferSettings, scratch: Path) -> None:
        self._folders, self._infer, self._scratch = folders, infer, scratch
        self._open_models: OrderedDict[str, OpenModel] = OrderedDict()

    def get(self, name: str, report_alive: Callable[[], None]) -> OpenModel:
        """Return a model, opening it first if needed.

        Raises SettingsError, ArtifactError or RuntimeEnvironmentError if it cannot be opened.
        """
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
        # Before the backbone is built: the number of threads changes the last bits of its results.
        decoder.configure_libraries(with_torch=True)
        recognizer = open_recognizer(folder, self._infer, stride_seconds=windows.stride_seconds)
        with open_encoder(source.spec, weights, self._infer, scratch=self._scratch) as encoder:
            counting_encoder = CountingEncoder(encoder)
        facts = ModelFacts(
            name=name,
            labels=recognizer.decision.labels,
            positive_label=recognizer.decision.positive_label,
            threshold=recognizer.decision.threshold,
            window_seconds=windows.window_seconds,
            backbone=source.spec.backbone,
            created=datetime.fromtimestamp((folder / MODEL_JSON).stat().st_mtime, UTC),
        )
        job = OpenModelJob(decoder, weights, None, counting_encoder=counting_encoder)
        return OpenModel(facts, recognizer, decoder, counting_encoder, job.start())


@contextmanager
def send_heartbeats(report_alive: Callable[[], None]) -> Iterator[None]:
    """Call `report_alive` every second during the block, which does not report by itself, such as opening a model."""
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
