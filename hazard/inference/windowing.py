"""How inference cuts videos: in windows like the clips that the model was trained on."""

from features.errors import SettingsError
from features.video.windows import TIME_DECIMALS, Windowing, choose_window_and_stride
from hazard.inference.settings import InferSettings
from hazard.models.input_spec import ModelInputSpec

MAX_WHOLE_CLIP_RATIO = 3.0
"""A clip up to so many times the usual length is looked at as a whole, if training saw clips as long."""
GUESSED_WHOLE_CLIP_RATIO = 1.5
"""The same of models that do not say how long the clips of training were."""


def choose_windows(info: ModelInputSpec, settings: InferSettings, *, with_whole: bool = False) -> Windowing:
    """By the settings where they say so, else by what the model was trained on. Raises SettingsError for gaps.

    By default a clip that is no longer than those of training is looked at as a whole, just as in its evaluation, and
    a longer one in windows of the usual length, each overlapping the next by half.
    """
    sampling = info.spec.sampling
    usual = info.window.duration_seconds or 1.0
    window, stride = choose_window_and_stride(sampling, usual, settings.stride_seconds)
    whole = max(
        window, min(info.window.longest_seconds or GUESSED_WHOLE_CLIP_RATIO * usual, MAX_WHOLE_CLIP_RATIO * usual)
    )
    if settings.window_seconds:
        window = whole = round(settings.window_seconds, TIME_DECIMALS)
        stride = settings.stride_seconds or _half_window(window, sampling.frames if sampling.kind == "even" else None)
    if stride > window:
        raise SettingsError(
            f"stride {stride:g} s leaves gaps between windows of {window:g} s; give a stride of at most {window:g}"
        )
    return Windowing(window, stride, whole, with_whole)


def _half_window(window: float, frames: int | None) -> float:
    """About half a window: so many of its frames as the next window shares."""
    share = max(1, frames // 2) / frames if frames else 0.5
    return max(0.001, round(window * share, TIME_DECIMALS))
