"""Choice of device and runtime from the settings, and an encoder opened there in this process."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from features.config import RunSettings
from features.encoders.base import FrameEncoder
from features.encoders.devices import pick_devices
from features.encoders.openvino_cache import get_openvino_network
from features.encoders.openvino_encoder import make_openvino_encoder, pick_runtime
from features.spec import FeatureSpec


def check_devices(settings: RunSettings) -> tuple[list[str], str]:
    """Return the devices and the runtime that the settings ask for. Raises SettingsError if one is not available."""
    devices = pick_devices(settings.device)
    return devices, pick_runtime(settings.runtime, on_cpu=devices == ["cpu"])


@contextmanager
def open_encoder(
    spec: FeatureSpec, weights: Path | None, settings: RunSettings, *, scratch: Path | None = None
) -> Iterator[FrameEncoder]:
    """Open the backbone in this process, on the first device of the settings. `scratch` is for temporary files."""
    devices, runtime = check_devices(settings)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        if runtime == "openvino":
            yield make_openvino_encoder(
                get_openvino_network(spec, weights, Path(folder)), spec, batch_size=settings.batch_size
            )
            return
        from features.encoders.torch_encoder import build_encoder

        yield build_encoder(spec, weights, device=devices[0], batch_size=settings.batch_size)
