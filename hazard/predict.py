"""Clips to predictions: stage one's own path, then the saved model's reduction and head."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from features.committing import PartWriter
from features.config import RunSettings
from features.consolidate import consolidate
from features.engines import check_engine, run_engine
from features.errors import ArtefactRefused
from features.jobs import Extracted, Picture
from features.lookup import open_lookup
from features.spec import FeatureSpec
from features.types import Clip, Failure
from features.weights import find_weights, weights_digest
from features.windows import Windows
from hazard.model_source import ModelSource
from hazard.sequences import pad, thin
from hazard.types import ClipPrediction, WindowPredictions

if TYPE_CHECKING:  # slow to import: workers decode meanwhile
    from hazard.model import Predictor

THUMBNAILS = 12
"""The longest strip that a report shows of a clip."""
AT_ONCE = 512
"""Windows that go through the head together."""

Found = tuple[Clip, ClipPrediction]


def predict_clips(
    clips: Sequence[Clip],
    source: ModelSource,
    opened: Callable[[], "Predictor"],
    settings: RunSettings,
    *,
    windows: Windows,
    weights: str = "auto",
    cache: Path | None = None,
    retry_failed: bool = False,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Found]:
    """Decodes, encodes and classifies each clip as the model's cache was made; undecided, in the order they finish.

    `source` is what the model must be fed; the model itself, which is slow to open, is asked for when the first clip is
    there. Long videos are cut in `windows`. Features that `cache` has are taken from it, new ones are added to it. Each
    clip comes back with the stamp of its file, where that could be read. Raises ArtefactRefused where the weights at
    hand, or the cache's features, are not those that the model was trained on.
    """
    spec = source.spec
    check_spec(spec)
    check_engine(settings)
    file = model_weights(spec, weights, hint=source.weights_file)
    hint = str(file.resolve()) if file else ""
    run = partial(
        run_engine,
        spec=spec,
        weights=file,
        settings=settings,
        with_pictures=True,
        windows=windows,
        is_stopped=is_stopped,
    )
    if cache is None:
        for outcome in run(clips):
            if isinstance(outcome, Failure | Extracted):
                yield outcome.clip, prediction(outcome, opened())
        return
    reduction = opened().reduction
    with open_lookup(cache, spec, reduction) as lookup:
        todo = []
        for clip in clips:
            found = lookup.find(clip, windows)
            if found is None or (retry_failed and isinstance(found, Failure)):
                todo.append(clip)
            else:
                yield clip, prediction(found, opened(), is_reduced=True)
        with PartWriter(cache, lookup.spec, weights_file=hint) as writer:
            for outcome in run(todo):
                if isinstance(outcome, Failure | Extracted):
                    writer.add(outcome)
                    yield outcome.clip, prediction(outcome, opened())
    consolidate(cache, lookup.spec, [], weights_file=hint, reduction_of_model=reduction)


def prediction(outcome: Extracted | Failure, predictor: "Predictor", *, is_reduced: bool = False) -> ClipPrediction:
    """What the model says of a clip's features, or why it says nothing."""
    clip = outcome.clip
    unseen = ClipPrediction(clip.path, "failed", truth=clip.label, file=str(clip.file))
    if isinstance(outcome, Failure):
        return replace(unseen, reason=f"{outcome.stage}: {outcome.reason}")
    source = outcome.windows or outcome.tracks[0]
    features = source.features if is_reduced or not predictor.reduction else predictor.reduction.apply(source.features)
    if outcome.windows:
        spans, rows = outcome.windows.spans - clip.start_seconds, outcome.windows.rows
    else:
        spans, rows = np.array([[0.0, source.duration]]), (np.arange(len(features)),)
    kept = [each[thin(len(each), predictor.info.settings.max_steps)] for each in rows]  # B of (T,)
    probs, strangeness = _predict(features, kept, predictor)
    telling = int(_alarm(probs, predictor).argmax())
    weights = _attention(features[kept[telling]], predictor)
    shown = _strip(outcome.pictures, spans, probs, predictor)
    return replace(
        unseen,
        status=source.status,
        reason=f"only {source.decoded_share:.0%} of the video could be decoded" if source.status == "partial" else "",
        duration=source.duration,
        windows=WindowPredictions(spans, probs),
        thumbnails=[picture.jpeg for picture in shown],
        thumbnail_times=[picture.seconds for picture in shown],
        attention=weights,
        attention_times=tuple(source.times[kept[telling]].tolist()) if weights else (),
        unknown_score=strangeness,
    )


def _predict(
    features: NDArray[np.float16], rows: Sequence[NDArray[np.int64]], predictor: "Predictor"
) -> tuple[NDArray[np.float64], float | None]:
    """Probabilities (B, K) of windows of the features (N, D), and how unlike training clips the middle one of them is.

    Not the strangest: of a thousand windows some always are.
    """
    probs, strange = [], []
    for start in range(0, len(rows), AT_ONCE):
        x, mask = pad([features[each] for each in rows[start : start + AT_ONCE]])  # (b, T, D)
        probs.append(predictor.predict(x, mask))
        scores = predictor.unknown_scores(x, mask)
        strange += [] if scores is None else [scores]
    return np.concatenate(probs), float(np.median(np.concatenate(strange))) if strange else None


def _alarm(probs: NDArray[np.float64], predictor: "Predictor") -> NDArray[np.float64]:
    """(B,) how telling each window is: the probability of the positive label, or of the likeliest one."""
    positive = predictor.positive_label
    return probs[:, predictor.labels.index(positive)] if positive else probs.max(axis=1)


def _attention(features: NDArray[np.float16], predictor: "Predictor") -> tuple[float, ...]:
    x, mask = pad([features])
    weights = predictor.attention(x, mask)
    return () if weights is None else tuple(weights[0].tolist())


def _strip(
    pictures: Sequence[Picture], spans: NDArray[np.float64], probs: NDArray[np.float64], predictor: "Predictor"
) -> list[Picture]:
    """Pictures spread over the clip; of a long video those of the most telling windows too."""
    shown = {int(i) for i in thin(len(pictures), THUMBNAILS)}
    if len(spans) > 1 and pictures:
        times = np.array([picture.seconds for picture in pictures])
        middles = spans.mean(axis=1)[_alarm(probs, predictor).argsort()[::-1][:THUMBNAILS]]
        shown |= {int(np.abs(times - middle).argmin()) for middle in middles}
    return [pictures[i] for i in sorted(shown)]


def check_spec(spec: FeatureSpec) -> None:
    """Raises ArtefactRefused where no video can be put through what the model was trained on."""
    if spec.is_imported:
        raise ArtefactRefused(
            f"the model was trained on features made elsewhere ({spec.backbone}), which no video can be put through; "
            "train one on a cache that extract-features made of videos"
        )


def model_weights(spec: FeatureSpec, weights: str, *, hint: str) -> Path | None:
    """The weights' file that a model needs, its digest checked; None for seeded random weights.

    `auto` tries the file that the features were made with, then whatever extraction would find.
    """
    if spec.weights == "random" and weights in ("auto", "random"):
        file = None
    elif weights == "auto" and hint and Path(hint).is_file():
        if weights_digest(spec.backbone, Path(hint)) == spec.weights_digest:
            return Path(hint)
        file = find_weights(spec.backbone, weights)
    else:
        file = find_weights(spec.backbone, weights)
    digest = weights_digest(spec.backbone, file)
    if digest != spec.weights_digest:
        raise ArtefactRefused(
            f"the model was trained on features of other {spec.backbone} weights: {spec.weights_digest[:24]} there, "
            f"{digest[:24]} in {file or 'the random weights of this torch'}; name the right file with --weights"
        )
    return file
