"""OpenVINO, the faster runtime on a CPU: each worker opens a converted network. Does not import torch."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.encoders.base import FrameEncoder, count_frames_per_row
from features.errors import SettingsError
from features.spec import FeatureSpec

BATCH_FRAMES = {"fp32": 1, "bf16": 2}
"""Frames per forward pass: the fastest measured, and fixed so that a feature does not depend on its neighbours."""


def pick_runtime(name: str, *, on_cpu: bool) -> str:
    """Return `openvino` or `torch`. `auto` means OpenVINO if it is installed and the device is a CPU.

    Raises SettingsError if `openvino` was asked for and cannot be used.
    """
    is_installed = find_spec("openvino") is not None
    if name == "openvino" and not is_installed:
        raise SettingsError("openvino is not installed; pip install openvino, or use --runtime torch")
    if name == "openvino" and not on_cpu:
        raise SettingsError("runtime 'openvino' runs only on the CPU; use --device cpu, or --runtime torch")
    return "openvino" if name != "torch" and is_installed and on_cpu else "torch"


def import_openvino() -> Any:
    """Import openvino without its telemetry, which would report each converted network to Google."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type] # as if it were not installed
    import openvino

    return openvino


def make_openvino_encoder(model: Path, spec: FeatureSpec, *, batch_size: int | None = None) -> FrameEncoder:
    """Return a single-threaded encoder of a converted model. One process per core is the fastest layout."""
    openvino = import_openvino()
    batch_size = batch_size or max(1, BATCH_FRAMES[spec.precision] // count_frames_per_row(spec))
    core = openvino.Core()
    network = core.read_model(model)
    network.reshape({network.inputs[0]: [batch_size, *row_shape(spec)]})
    hint = {"fp32": "f32", "bf16": "bf16"}[spec.precision]  # explicit: a processor with bf16 would use it by default
    options = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": 1,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # it would pin the one thread of every process to the same core
    }
    request = core.compile_model(network, "CPU", options).create_infer_request()

    def forward(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.array(request.infer([np.ascontiguousarray(frames)], share_inputs=True)[0])

    return FrameEncoder(forward, batch_size=batch_size, pads_batches=True)


def row_shape(spec: FeatureSpec) -> list[int]:
    """Return the input shape of a row: (S, S, 3) for a frame, (L, S, S, 3) for a snippet."""
    side = spec.preprocessing.size
    return ([count_frames_per_row(spec)] if spec.sampling.kind == "snippets" else []) + [side, side, 3]
