"""Construction of the FeatureSpec, and choice of the weights file, from the settings."""

from pathlib import Path
from typing import Any

from features.backbones.base import Backbone
from features.backbones.registry import get_backbone, pooled_width
from features.backbones.weights import find_weights, weights_digest
from features.cache.reduction import parse_reduction
from features.config import ExtractSettings
from features.errors import SettingsError
from features.spec import FeatureSpec, Preprocessing, Sampling
from features.video.views import check_views

DEFAULT_FRAMES = 12
"""Frames per clip or window, if the settings name no number."""


def build_spec(settings: ExtractSettings) -> tuple[FeatureSpec, Path | None]:
    """Return the spec that the settings ask for and the weights file, None for random weights.

    Raises SettingsError for a wrong setting, ArtifactError for rejected weights, and RuntimeEnvironmentError if the
    weights cannot be downloaded.
    """
    backbone = get_backbone(settings.backbone)
    parse_reduction(settings.reduce, width=pooled_width(settings.backbone, settings.pooling))
    weights = find_weights(settings.backbone, settings.weights)
    sampling = _make_sampling(settings, backbone)
    spec = FeatureSpec(
        sampling=sampling,
        preprocessing=_make_preprocessing(settings, backbone),
        backbone=settings.backbone,
        weights="random" if weights is None else "pretrained",
        weights_digest=weights_digest(settings.backbone, weights),
        pooling=settings.pooling,
        precision=settings.precision,
        views=check_views(settings.views, sampling),
        reduction=settings.reduce,
    )
    return spec, weights


def _make_preprocessing(settings: ExtractSettings, backbone: Backbone) -> Preprocessing:
    """Return the backbone's preprocessing with the changes of the settings. Raises SettingsError for a wrong size."""
    own = backbone.preprocessing
    changes: dict[str, Any] = {"fit": settings.fit} if settings.fit else {}
    if settings.size is not None and settings.size != own.size:
        if not backbone.accepts_any_size:
            raise SettingsError(
                f"backbone '{settings.backbone}' takes only frames of {own.size} pixels; leave out size"
            )
        changes |= {"size": settings.size, "resize": round(own.resize * settings.size / own.size)}
    return own.model_copy(update=changes)


def _make_sampling(settings: ExtractSettings, backbone: Backbone) -> Sampling:
    """Return the sampling that the settings ask for. Raises SettingsError if they ask for two kinds."""
    asked = {
        "fps": settings.fps is not None and not backbone.snippet,
        "every": settings.every is not None,
        "all_frames": settings.all_frames,
        "window_seconds": settings.window_seconds is not None,
    }
    names = [name for name, is_asked in asked.items() if is_asked]
    if backbone.snippet and names:
        raise SettingsError(
            f"backbone '{settings.backbone}' takes snippets: set frames, fps or stride_seconds, not {names[0]}"
        )
    if len(names) > 1:
        raise SettingsError(f"give either {' or '.join(names)}, not both")
    common: dict[str, Any] = {"folder_fps": settings.folder_fps}
    if backbone.snippet:
        frames, fps = settings.frames or backbone.snippet[0], settings.fps or backbone.snippet[1]
        stride = settings.stride_seconds or frames / fps / 2
        return Sampling(kind="snippets", frames=frames, fps=fps, stride_seconds=stride, **common)
    if settings.fps is not None:
        return Sampling(kind="rate", frames=None, fps=settings.fps, **common)
    if settings.every is not None:
        return Sampling(kind="every", frames=None, every=settings.every, **common)
    if settings.all_frames:
        return Sampling(kind="all", frames=None, **common)
    frames = settings.frames or DEFAULT_FRAMES
    if settings.window_seconds is None:
        return Sampling(frames=frames, **common)
    stride = settings.stride_seconds or settings.window_seconds / 2
    return Sampling(
        kind="windows", frames=frames, window_seconds=settings.window_seconds, stride_seconds=stride, **common
    )
