"""Clips to predictions: stage one's own path, then the saved model's reduction and head."""

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
"""The longest strip that a report shows of a clip."""

MAX_WINDOWS_PER_BATCH = 512
"""Windows that go through the head together at most."""

MAX_WAITING_CLIPS = 32
"""Clips that wait for each other at most."""

MAX_WAIT_SECONDS = 2.0
"""How long they wait."""

PredictedClip = tuple[Clip, ClipPrediction]


def predict_clips(
    clips: Sequence[Clip],
    source: ModelInputSpec,
    get_predictor: Callable[[], "Predictor"],
    settings: RunSettings,
    *,
    windows: Windowing,
    weights: str = "auto",
    cache: Path | None = None,
    retry_failed: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[PredictedClip]:
    """Decodes, encodes and classifies each clip as the model's cache was made; undecided, in the order they finish.

    `source` is what the model must be fed; the model itself, which is slow to open, is asked for when the first clip is
    there. Long videos are cut in `windows`. Features that `cache` has are taken from it, new ones are added to it. Each
    clip comes back with the stamp of its file, where that could be read. Raises ArtefactRefused where the weights at
    hand, or the cache's features, are not those that the model was trained on.
    """
    spec = source.spec
    check_model_spec(spec)
    check_engine(settings)
    file = find_model_weights(spec, weights, hint=source.weights_file)
    hint = str(file.resolve()) if file else ""
    run = partial(
        run_engine,
        spec=spec,
        weights=file,
        settings=settings,
        with_thumbnails=True,
        windows=windows,
        is_stopped=is_stopped,
    )
    if cache is None:
        yield from _predict_in_batches(run(clips), get_predictor)
        return
    reduction = get_predictor().reduction
    with open_lookup(cache, spec, reduction) as lookup:
        todo: list[Clip] = []
        kept = _look_up_clips(clips, lookup, windows, todo, retry_failed=retry_failed)
        yield from _predict_in_batches(kept, get_predictor, is_reduced=True)
        with PartWriter(cache, lookup.spec, weights_file=hint) as writer:
            yield from _predict_in_batches(_write_outcomes(run(todo), writer), get_predictor)
    consolidate(cache, lookup.spec, [], weights_file=hint, model_reduction=reduction)


def _look_up_clips(
    clips: Iterable[Clip], lookup: FeatureLookup, windows: Windowing, todo: list[Clip], *, retry_failed: bool
) -> Iterator[ExtractedClip | Failure]:
    """What the cache has; the other clips are added to `todo`."""
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
    """Predictions of what comes close together, for the model is far quicker on many clips than on each."""
    waiting: list[ExtractedClip | Failure] = []
    since = time.monotonic()

    def flush() -> Iterator[PredictedClip]:
        each = predict_outcomes(waiting, get_predictor(), is_reduced=is_reduced) if waiting else []
        yield from zip((one.clip for one in waiting), each, strict=True)

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
    """What the model says of the features of clips, or why it says nothing; all windows go through it together."""
    seen = [_WindowedClip.from_outcome(o, predictor, is_reduced) for o in outcomes if isinstance(o, ExtractedClip)]
    if not seen:
        return [_make_failed_prediction(outcome) for outcome in outcomes if isinstance(outcome, Failure)]
    steps = [each for one in seen for each in one.steps]  # B of (T, D)
    probs, strange = _predict_windows(steps, predictor)
    ends = np.cumsum([len(one.steps) for one in seen])[:-1]
    each = list(zip(seen, np.split(probs, ends), _split_scores(strange, ends, len(seen)), strict=True))
    telling = [int(_alarm_scores(own, predictor).argmax()) for _, own, _ in each]
    weights = _attention_weights([one.steps[at] for one, at in zip(seen, telling, strict=True)], predictor)
    said = iter(
        one.to_prediction(own, scores, at, attention, predictor)
        for (one, own, scores), at, attention in zip(each, telling, weights, strict=True)
    )
    return [
        next(said) if isinstance(outcome, ExtractedClip) else _make_failed_prediction(outcome) for outcome in outcomes
    ]


def _make_failed_prediction(failure: Failure) -> ClipPrediction:
    clip = failure.clip
    reason = f"{failure.stage}: {failure.reason}"
    return ClipPrediction(clip.path, "failed", reason, truth=clip.label, file=str(clip.file))


@dataclass(frozen=True)
class _WindowedClip:
    """The windows of a clip, as the model takes them."""

    source: FeatureTrack | WindowTracks
    spans: NDArray[np.float64]  # (B, 2) seconds from the clip's start
    steps: Sequence[NDArray[np.float16]]  # B of (T, D)
    times: Sequence[NDArray[np.float64]]  # B of (T,)
    thumbnails: Sequence[Thumbnail]

    @classmethod
    def from_outcome(cls, outcome: ExtractedClip, predictor: "Predictor", is_reduced: bool) -> "_WindowedClip":
        """Reduced, and no longer than the sequences of training."""
        source = outcome.windows or outcome.tracks[0]
        plain = is_reduced or predictor.reduction is None
        features = source.features if plain else predictor.reduction.apply(source.features)  # type: ignore[union-attr]
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
        """What a report needs to know; `telling` is the window that `attention` is of.

        A video is as strange as its middle window, not as its strangest: of a thousand windows some always are.
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
            thumbnails=[picture.jpeg for picture in shown],
            thumbnail_times=[picture.seconds for picture in shown],
            attention=attention,
            attention_times=tuple(self.times[peak_window].tolist()) if attention else (),
            unknown_score=None if ood_scores is None else float(np.median(ood_scores)),
            file=str(source.clip.file),
        )


def _predict_windows(
    steps: Sequence[NDArray[np.float16]], predictor: "Predictor"
) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Probabilities (B, K) of windows, each (T, D), and how unlike training clips each is, (B,), if that is known."""
    probs, strange = [], []
    for start in range(0, len(steps), MAX_WINDOWS_PER_BATCH):
        x, mask = pad_tracks(list(steps[start : start + MAX_WINDOWS_PER_BATCH]))  # (b, T, D)
        probs.append(predictor.predict(x, mask))
        scores = predictor.ood_scores(x, mask)
        strange += [] if scores is None else [scores]
    return np.concatenate(probs), np.concatenate(strange) if strange else None


def _split_scores(
    scores: NDArray[np.float64] | None, ends: NDArray[np.int64], clips: int
) -> Sequence[NDArray[np.float64] | None]:
    return [None] * clips if scores is None else np.split(scores, ends)


def _attention_weights(steps: Sequence[NDArray[np.float16]], predictor: "Predictor") -> list[tuple[float, ...]]:
    """How much each step of each window (T, D) weighs."""
    x, mask = pad_tracks(list(steps))
    weights = predictor.attention(x, mask)
    if weights is None:
        return [()] * len(steps)
    return [tuple(row[: len(own)].tolist()) for row, own in zip(weights, steps, strict=True)]


def _alarm_scores(probs: NDArray[np.float64], predictor: "Predictor") -> NDArray[np.float64]:
    """(B,) how telling each window is: the probability of the positive label, or of the likeliest one."""
    positive = predictor.positive_label
    return probs[:, predictor.labels.index(positive)] if positive else probs.max(axis=1)


def _select_thumbnails(
    thumbnails: Sequence[Thumbnail], spans: NDArray[np.float64], probs: NDArray[np.float64], predictor: "Predictor"
) -> list[Thumbnail]:
    """Pictures spread over the clip; of a long video those of the most telling windows too."""
    shown = {int(i) for i in subsample_steps(len(thumbnails), MAX_THUMBNAILS)}
    if len(spans) > 1 and thumbnails:
        times = np.array([picture.seconds for picture in thumbnails])
        middles = spans.mean(axis=1)[_alarm_scores(probs, predictor).argsort()[::-1][:MAX_THUMBNAILS]]
        shown |= {int(np.abs(times - middle).argmin()) for middle in middles}
    return [thumbnails[i] for i in sorted(shown)]
