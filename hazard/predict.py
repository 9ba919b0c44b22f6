"""Clips to predictions: stage one's own path, then the saved model's reduction and head."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from features.config import RunSettings
from features.engines import check_engine, run_engine
from features.errors import ArtefactRefused
from features.jobs import Extracted
from features.spec import FeatureSpec
from features.types import Clip, Failure, FeatureTrack
from features.weights import find_weights, weights_digest
from hazard.model import Predictor
from hazard.sequences import thin
from hazard.types import ClipPrediction

THUMBNAILS = 12
"""The longest strip that a report shows of a clip."""


def predict_clips(
    clips: Sequence[Clip],
    predictor: Predictor,
    settings: RunSettings,
    *,
    weights: str = "auto",
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[ClipPrediction]:
    """Decodes, encodes and classifies each clip exactly as the model's cache was made; in the order they finish.

    Raises ArtefactRefused where the weights at hand are not those that the model was trained on.
    """
    spec = FeatureSpec.model_validate(predictor.feature_spec)
    if spec.is_imported:
        raise ArtefactRefused(
            f"the model was trained on features made elsewhere ({spec.backbone}), which no video can be put through; "
            "train one on a cache that extract-features made of videos"
        )
    check_engine(settings)
    file = model_weights(spec, weights, hint=predictor.info.weights_file)
    for outcome in run_engine(clips, spec, file, settings, with_pictures=True, is_stopped=is_stopped):
        if isinstance(outcome, Failure):
            yield ClipPrediction(
                path=outcome.clip.path,
                status="failed",
                reason=f"{outcome.stage}: {outcome.reason}",
                truth=outcome.clip.label,
            )
        elif isinstance(outcome, Extracted):
            yield _prediction(outcome, predictor)


def predict_track(track: FeatureTrack, predictor: Predictor) -> np.ndarray:
    """Probabilities (K,) of one clip's raw, unreduced features."""
    features = predictor.reduction.apply(track.features) if predictor.reduction else track.features  # (N, D)
    kept = features[thin(len(features), predictor.info.settings.max_steps)].astype(np.float32)  # (T, D)
    return predictor.predict(kept[None], np.ones((1, len(kept)), np.bool_))[0]


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


def _prediction(outcome: Extracted, predictor: Predictor) -> ClipPrediction:
    track = outcome.tracks[0]
    probs = predict_track(track, predictor)
    shown = thin(len(outcome.pictures), THUMBNAILS)
    return ClipPrediction(
        path=track.clip.path,
        status=track.status,
        reason=f"only {track.decoded_share:.0%} of the video could be decoded" if track.status == "partial" else "",
        label=predictor.decide(probs[None])[0],
        probs=tuple(float(p) for p in probs),
        truth=track.clip.label,
        duration=track.duration,
        thumbnails=[outcome.pictures[i] for i in shown],
        thumbnail_times=[float(track.times[i]) for i in shown],
    )
