"""Windows of inference: long videos are split into windows like the clips that the model was trained on."""

from features.errors import SettingsError
from features.video.windows import TIME_DECIMALS, Windowing, choose_window_and_stride
from hazard.inference.settings import InferSettings
from hazard.models.input_spec import ModelInputSpec

MAX_WHOLE_CLIP_RATIO = 3.0
"""Whole clips up to this multiple of the usual length are one window, if training had clips as long."""
GUESSED_WHOLE_CLIP_RATIO = 1.5
"""The same multiple for models that do not store the longest training clip."""


def choose_windows(info: ModelInputSpec, settings: InferSettings, *, with_whole: bool = False) -> Windowing:
    """Choose window and stride from the settings, else from the clips that the model was trained on.

    By default a clip that is no longer than the training clips is analysed as a whole, as in the model's evaluation. A
    longer one is split into windows of the usual length, each overlapping the next by half. Raises SettingsError if
    the stride is longer than the window.
    """
    sampling = info.spec.sampling
    usual_seconds = info.window.duration_seconds or 1.0
    window, stride = choose_window_and_stride(sampling, usual_seconds, settings.stride_seconds)
    longest_seconds = info.window.longest_seconds or GUESSED_WHOLE_CLIP_RATIO * usual_seconds
    whole = max(window, min(longest_seconds, MAX_WHOLE_CLIP_RATIO * usual_seconds))
    if settings.window_seconds:
        window = whole = round(settings.window_seconds, TIME_DECIMALS)
        stride = settings.stride_seconds or _half_window(window, sampling.frames if sampling.kind == "even" else None)
    if stride > window:
        raise SettingsError(
            f"a stride of {stride:g} s leaves gaps between windows of {window:g} s; give a stride of at most {window:g}"
        )
    return Windowing(window, stride, whole, with_whole)


def _half_window(window: float, frames: int | None) -> float:
    """Return about half a window in seconds: a whole number of its `frames`, which the next window shares."""
    share = max(1, frames // 2) / frames if frames else 0.5
    return max(0.001, round(window * share, TIME_DECIMALS))
