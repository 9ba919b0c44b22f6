"""Engines: workers run as processes of this machine, or on Ray."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from features.config import RunSettings
from features.encoders.factory import check_devices
from features.errors import SettingsError
from features.extraction.local_engine import extract_clips
from features.extraction.ray_engine import check_cluster, extract_on_cluster
from features.sources.download.fetch import fetch_clips
from features.spec import FeatureSpec
from features.types import Clip, Outcome
from features.video.windows import Windowing

ENGINES = {"local": extract_clips, "ray": extract_on_cluster}


def check_engine(settings: RunSettings) -> str:
    """Return a text that says where clips are decoded and encoded. Raises SettingsError if that is not available."""
    if settings.engine == "ray":
        return check_cluster(settings)
    if settings.address:
        raise SettingsError(f"address '{settings.address}' is for a Ray cluster; add --engine ray")
    devices, runtime = check_devices(settings)
    return f"{', '.join(map(str, devices))} with {runtime}"


def run_engine(
    clips: Sequence[Clip],
    spec: FeatureSpec,
    weights: Path | None,
    settings: RunSettings,
    *,
    with_thumbnails: bool = False,
    windows: Windowing | None = None,
    is_stopped: Callable[[], bool] = lambda: False,
) -> Iterator[Outcome]:
    """Yield the raw, unreduced features of each clip, or its failure, in the order in which they finish.

    The engine is that of the settings. Long videos are split into `windows`; without them each video is one clip. URLs
    are downloaded first, by this machine.
    """
    clips, unfetched = fetch_clips(clips, settings, is_stopped=is_stopped)
    yield from unfetched
    if clips and not is_stopped():
        extract = ENGINES[settings.engine]
        yield from extract(
            clips, spec, weights, settings, with_thumbnails=with_thumbnails, windows=windows, is_stopped=is_stopped
        )
