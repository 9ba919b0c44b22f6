"""Clips → predictions: stage one extracts the features, then the saved model reduces and classifies them."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.cache.consolidate import consolidate
from features.cache.lookup import FeatureLookup, open_lookup
from features.cache.part_writer import PartWriter
from features.config import RunSettings
from features.extraction.engines import check_engine, run_engine
from features.types import Clip, ExtractedClip, Failure, FeatureTrack, Outcome, Thumbnail, WindowTracks
from features.video.windows import Windowing
from hazard.data.sequences import pad_tracks, subsample_steps
from hazard.models.input_spec import ModelInputSpec, check_model_spec, find_model_weights
from hazard.types import ClipPrediction, WindowPredictions

if TYPE_CHECKING:
    from hazard.models.predictor import Predictor


MAX_THUMBNAILS = 12
"""Thumbnails of a clip in a report, at most; a long video has some more, from its peak windows."""

MAX_WINDOWS_PER_BATCH = 512
"""Windows in one batch of the model, at most."""

MAX_WAITING_CLIPS = 32
"""Clips that are collected into one batch, at most."""

MAX_WAIT_SECONDS = 2.0
"""Seconds for which a batch is collected, at most."""

PredictedClip = tuple[Clip, ClipPrediction]


def predict_clips(
    clips: Sequence[Clip],
    input_spec: ModelInputSpec,
    get_predictor: Callable[[], "Predictor"],
    settings: RunSettings,
    *,
    windows: Windowing,
    weights: str = "auto",
    cache: Path | None = None,
    retry_failed: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[PredictedClip]:
    """Yield each clip with its prediction: decoded and encoded as the training cache was, then classified.

    Predictions are undecided (no label, no events) and come in the order in which the clips finish. `input_spec` says
    which features the model takes. `get_predictor` is called when the first features are there, since a model is slow
    to open. Long videos are split into `windows`. Features are read from `cache` where it has them, and new ones are
    added to it. The yielded clip carries the identity of its file, if that could be read. Raises ArtifactError if the
    weights or the cache's features are not those that the model was trained on.
    """
    spec = input_spec.spec
    check_model_spec(spec)
    check_engine(settings)
    file = find_model_weights(spec, weights, hint=input_spec.weights_file)
    weights_file = str(file.resolve()) if file else ""
    extract = partial(
        run_engine,
        spec=spec,
        weights=file,
        settings=settings,
        with_thumbnails=True,
        windows=windows,
        is_stopped=is_stopped,
    )
    if cache is None:
        yield from _predict_in_batches(extract(clips), get_predictor)
        return
    reduction = get_predictor().reduction
    with open_lookup(cache, spec, reduction) as lookup:
        todo: list[Clip] = []
        cached = _look_up_clips(clips, lookup, windows, todo, retry_failed=retry_failed)
        yield from _predict_in_batches(cached, get_predictor, is_reduced=True)
        with PartWriter(cache, lookup.spec, weights_file=weights_file) as writer:
            yield from _predict_in_batches(_write_outcomes(extract(todo), writer), get_predictor)
    consolidate(cache, lookup.spec, [], weights_file=weights_file, model_reduction=reduction)


def _look_up_clips(
    clips: Iterable[Clip], lookup: FeatureLookup, windows: Windowing, todo: list[Clip], *, retry_failed: bool
) -> Iterator[ExtractedClip | Failure]:
    """Yield what the cache has of the clips; append the other clips to `todo`."""
    for clip in clips:
        found = lookup.find(clip, windows)
        if found is None or (retry_failed and isinstance(found, Failure)):
            todo.append(clip)
        else:
            yield found


def _write_outcomes(outcomes: Iterable[Outcome], writer: PartWriter) -> Iterator[Outcome]:
    for outcome in outcomes:
        if isinstance(outcome, Failure | ExtractedClip):
            writer.add(outcome)
        yield outcome


def _predict_in_batches(
    outcomes: Iterable[Outcome], get_predictor: Callable[[], "Predictor"], *, is_reduced: bool = False
) -> Iterator[PredictedClip]:
    """Yield predictions of outcomes collected into batches: the model is far quicker on many clips at once."""
    waiting: list[ExtractedClip | Failure] = []
    since = time.monotonic()

    def flush() -> Iterator[PredictedClip]:
        predictions = predict_outcomes(waiting, get_predictor(), is_reduced=is_reduced) if waiting else []
        yield from zip((outcome.clip for outcome in waiting), predictions, strict=True)

    for outcome in outcomes:
        if isinstance(outcome, Failure | ExtractedClip):
            waiting.append(outcome)
        is_long = isinstance(outcome, ExtractedClip) and outcome.windows is not None
        if is_long or len(waiting) >= MAX_WAITING_CLIPS or time.monotonic() - since > MAX_WAIT_SECONDS:
            yield from flush()
            waiting, since = [], time.monotonic()
    yield from flush()


def predict_outcomes(
    outcomes: Sequence[ExtractedClip | Failure], predictor: "Predictor", *, is_reduced: bool = False
) -> list[ClipPrediction]:
    """Return the prediction of each outcome, in the same order; a failure becomes a failed prediction.

    The windows of all clips go through the model together.
    """
    clips = [_WindowedClip.from_outcome(o, predictor, is_reduced) for o in outcomes if isinstance(o, ExtractedClip)]
    if not clips:
        return [_make_failed_prediction(outcome) for outcome in outcomes if isinstance(outcome, Failure)]
    steps = [window for clip in clips for window in clip.steps]  # B of (T, D)
    all_probs, all_ood_scores = _predict_windows(steps, predictor)
    ends = np.cumsum([len(clip.steps) for clip in clips])[:-1]
    clip_probs = np.split(all_probs, ends)
    clip_ood_scores = _split_scores(all_ood_scores, ends, len(clips))
    peaks = [int(_alarm_scores(probs, predictor).argmax()) for probs in clip_probs]
    attention = _attention_weights([clip.steps[peak] for clip, peak in zip(clips, peaks, strict=True)], predictor)
    predictions = iter(
        clip.to_prediction(probs, ood_scores, peak, weights, predictor)
        for clip, probs, ood_scores, peak, weights in zip(
            clips, clip_probs, clip_ood_scores, peaks, attention, strict=True
        )
    )
    return [
        next(predictions) if isinstance(outcome, ExtractedClip) else _make_failed_prediction(outcome)
        for outcome in outcomes
    ]


def _make_failed_prediction(failure: Failure) -> ClipPrediction:
    clip = failure.clip
    reason = f"{failure.stage}: {failure.reason}"
    return ClipPrediction(clip.path, "failed", reason, truth=clip.label, file=str(clip.file))


@dataclass(frozen=True)
class _WindowedClip:
    """The windows of a clip in the form that the model takes."""

    source: FeatureTrack | WindowTracks
    spans: NDArray[np.float64]  # (B, 2) seconds from the clip's start
    steps: Sequence[NDArray[np.float16]]  # B of (T, D)
    times: Sequence[NDArray[np.float64]]  # B of (T,)
    thumbnails: Sequence[Thumbnail]

    @classmethod
    def from_outcome(cls, outcome: ExtractedClip, predictor: "Predictor", is_reduced: bool) -> "_WindowedClip":
        """Make the windows: features reduced, and no longer than the sequences of training."""
        source = outcome.windows or outcome.tracks[0]
        is_ready = is_reduced or predictor.reduction is None
        features = source.features if is_ready else predictor.reduction.apply(source.features)  # type: ignore[union-attr]
        if isinstance(source, WindowTracks):
            spans, rows = source.spans - source.clip.start_seconds, source.rows
        else:
            spans, rows = np.array([[0.0, source.duration]]), (np.arange(len(features)),)
        kept = [each[subsample_steps(len(each), predictor.info.settings.max_steps)] for each in rows]
        return cls(source, spans, [features[r] for r in kept], [source.times[r] for r in kept], outcome.thumbnails)

    def to_prediction(
        self,
        probs: NDArray[np.float64],
        ood_scores: NDArray[np.float64] | None,
        peak_window: int,
        attention: tuple[float, ...],
        predictor: "Predictor",
    ) -> ClipPrediction:
        """Make the prediction of the clip; `attention` belongs to the window `peak_window`.

        The score of "unknown" is the median over the windows, not the maximum: of a thousand windows some are always
        unusual.
        """
        source, shown = self.source, _select_thumbnails(self.thumbnails, self.spans, probs, predictor)
        is_partial = source.status == "partial"
        return ClipPrediction(
            source.clip.path,
            source.status,
            f"only {source.decoded_share:.0%} of the video could be decoded" if is_partial else "",
            truth=source.clip.label,
            duration=source.duration,
            windows=WindowPredictions(self.spans, probs),
            thumbnails=[thumbnail.jpeg for thumbnail in shown],
            thumbnail_times=[thumbnail.seconds for thumbnail in shown],
            attention=attention,
            attention_times=tuple(self.times[peak_window].tolist()) if attention else (),
            unknown_score=None if ood_scores is None else float(np.median(ood_scores)),
            file=str(source.clip.file),
        )


def _predict_windows(
    steps: Sequence[NDArray[np.float16]], predictor: "Predictor"
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Return probabilities (B, K) of windows, each (T, D), and open-set scores (B,), or None if the model has none."""
    probs, ood_scores = [], []
    for start in range(0, len(steps), MAX_WINDOWS_PER_BATCH):
        x, mask = pad_tracks(list(steps[start : start + MAX_WINDOWS_PER_BATCH]))  # (b, T, D)
        probs.append(predictor.predict(x, mask))
        scores = predictor.ood_scores(x, mask)
        ood_scores += [] if scores is None else [scores]
    return np.concatenate(probs), np.concatenate(ood_scores) if ood_scores else None


def _split_scores(
    scores: NDArray[np.float64] | None, ends: NDArray[np.int64], clips: int
) -> Sequence[NDArray[np.float64] | None]:
    return [None] * clips if scores is None else np.split(scores, ends)


def _attention_weights(steps: Sequence[NDArray[np.float16]], predictor: "Predictor") -> list[tuple[float, ...]]:
    """Return the attention weight of each step of each window (T, D); empty tuples if the head has no attention."""
    x, mask = pad_tracks(list(steps))
    weights = predictor.attention(x, mask)
    if weights is None:
        return [()] * len(steps)
    return [tuple(row[: len(own)].tolist()) for row, own in zip(weights, steps, strict=True)]


def _alarm_scores(probs: NDArray[np.float64], predictor: "Predictor") -> NDArray[np.float64]:
    """Return (B,) scores of windows: the probability of the positive label, or of the most probable one without it."""
    positive = predictor.positive_label
    return probs[:, predictor.labels.index(positive)] if positive else probs.max(axis=1)


def _select_thumbnails(
    thumbnails: Sequence[Thumbnail], spans: NDArray[np.float64], probs: NDArray[np.float64], predictor: "Predictor"
) -> list[Thumbnail]:
    """Return thumbnails spread over the clip and, for a long video, those nearest to its highest-scoring windows."""
    shown = {int(i) for i in subsample_steps(len(thumbnails), MAX_THUMBNAILS)}
    if len(spans) > 1 and thumbnails:
        times = np.array([thumbnail.seconds for thumbnail in thumbnails])
        middles = spans.mean(axis=1)[_alarm_scores(probs, predictor).argsort()[::-1][:MAX_THUMBNAILS]]
        shown |= {int(np.abs(times - middle).argmin()) for middle in middles}
    return [thumbnails[i] for i in sorted(shown)]
