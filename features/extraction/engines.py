"""Who runs the workers: this machine's own processes, or Ray."""

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
    """Where clips would be decoded and encoded, in words. Raises SettingsError where that is not to be had."""
    if settings.engine == "ray":
        return check_cluster(settings)
    if settings.address:
        raise SettingsError(f"address '{settings.address}' is of a Ray cluster; add --engine ray")
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
    """Raw, unreduced features of each clip, or its failure, in the order they finish; by the engine of the settings.

    Videos longer than `windows` say are cut; without it each clip is one. Addresses are fetched first, by this machine.
    """
    clips, unfetched = fetch_clips(clips, settings, is_stopped=is_stopped)
    yield from unfetched
    if clips and not is_stopped():
        run = ENGINES[settings.engine]
        yield from run(
            clips, spec, weights, settings, with_thumbnails=with_thumbnails, windows=windows, is_stopped=is_stopped
        )
