"""A saved model as one ONNX file, checked against the model itself before it is written."""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import Dim

from features.backbones.loading import load_backbone
from features.encoders.base import Encoder, frames_a_row
from features.encoders.torch_encoder import Features, build_encoder, fold_batch_norms
from features.errors import ArtefactRefused, SettingsError
from features.spec import FeatureSpec
from features.utils.files import check_writable, write_atomically
from hazard.data.sequences import pad
from hazard.models.input_spec import model_weights
from hazard.models.model_folder import open_model
from hazard.models.onnx.modules import Probabilities, WholeChain, typical
from hazard.models.predictor import Predictor

LIBRARIES = ("onnx", "onnxruntime", "onnxscript")
OPSET = 18
TOLERANCE = 1e-4
"""Largest difference in probability between ONNX Runtime and the model itself that is let through."""

PROBES = ((3, 5), (1, 1), (4, 9))
"""Clips and steps of what both are asked. The first is also what the graph is traced with."""

Arrays = tuple[NDArray[Any], NDArray[np.bool_]]  # x or frames (B, T, ...), mask (B, T)


@dataclass(frozen=True)
class Exported:
    """What was written, and how far ONNX Runtime was from the model itself."""

    file: Path
    size_bytes: int
    difference: float
    inputs: dict[str, str]
    """Name → type and shape."""


def export_onnx(folder: Path, output: Path | None = None, *, whole: bool = False, weights: str = "auto") -> Exported:
    """The model of `folder` from features to probabilities, or with `whole` from the network's frames on.

    Raises SettingsError where it cannot be exported or the extra `onnx` is missing, ArtefactRefused where the model is
    refused or ONNX Runtime gives other probabilities, EnvironmentStopped where the file cannot be written.
    """
    _check_libraries()
    predictor = open_model(folder)
    file = output or folder / ("whole.onnx" if whole else "model.onnx")
    check_writable(file)
    chain = _Chain.load(predictor, weights) if whole else _Head(predictor)
    content = _serialised(chain, predictor)
    difference = _largest_difference(chain, content)
    if not difference <= TOLERANCE:
        raise ArtefactRefused(
            f"nothing was written to {file}: ONNX Runtime gave probabilities that differ by {difference:.2g} from the "
            f"model's own, at most {TOLERANCE:g} is let through"
        )
    write_atomically(file, content)
    return Exported(file, len(content), difference, chain.inputs)


class _Head:
    """From features on."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.graph: nn.Module = Probabilities(predictor).eval()
        self.inputs = {"x": f"float32 (B, T, {predictor.info.width})", "mask": "bool (B, T)"}

    def probe(self, clips: int, steps: int) -> Arrays:
        """Clips that differ more from each other than within, of all lengths, around what training showed."""
        random = np.random.default_rng(clips)
        width = self.predictor.info.width
        mean, spread = typical(self.predictor.model, width)
        noise = random.normal(size=(clips, 1, width)) + 0.3 * random.normal(size=(clips, steps, width))
        mask = _prefixes(clips, steps)
        return ((mean + spread * noise) * mask[..., None]).astype(np.float32), mask

    def expected(self, x: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """What the project itself says (B, K)."""
        return self.predictor.predict(x, mask)


class _Chain:
    """From the network's frames on."""

    def __init__(self, predictor: Predictor, spec: FeatureSpec, network: nn.Module, encoder: Encoder) -> None:
        self.predictor, self.encoder = predictor, encoder
        features = Features(fold_batch_norms(network), spec.preprocessing, spec.pooling, torch.float32)
        self.graph: nn.Module = WholeChain(features, predictor.reduction, Probabilities(predictor)).eval()
        side, frames = spec.preprocessing.size, frames_a_row(spec)
        self.shape = (*((frames,) if frames > 1 else ()), side, side, 3)  # of a row
        shape = ", ".join(map(str, self.shape))
        self.inputs = {"frames": f"uint8 RGB (B, T, {shape})", "mask": "bool (B, T)"}

    @classmethod
    def load(cls, predictor: Predictor, weights: str) -> "_Chain":
        spec = FeatureSpec.model_validate(predictor.feature_spec)
        if spec.is_imported:
            raise SettingsError(
                f"the model was trained on features made elsewhere ({spec.backbone}): leave out --whole, and the part "
                "from features on is exported"
            )
        if spec.precision != "fp32":
            raise SettingsError(
                f"its features were made in {spec.precision}, which ONNX Runtime would compute otherwise: leave out "
                "--whole, and the part from features on is exported"
            )
        file = model_weights(spec, weights, hint=predictor.info.weights_file)
        encoder = build_encoder(spec, file, device="cpu")
        return cls(predictor, spec, load_backbone(spec.backbone, file), encoder)

    def probe(self, clips: int, steps: int) -> Arrays:
        """Coarse random pictures, so that features differ."""
        random = np.random.default_rng(clips)
        coarse = random.integers(0, 256, (clips, steps, *(4 if n > 3 else n for n in self.shape)), np.uint8)
        shape = (clips, steps, *self.shape)
        rows = np.ix_(*(np.arange(n) * m // n for n, m in zip(shape, coarse.shape, strict=True)))
        return coarse[rows], _prefixes(clips, steps)

    def expected(self, frames: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """As inference does it: the encoder, the reduction, the model."""
        reduction = self.predictor.reduction
        raw = [self.encoder.encode(rows[real]) for rows, real in zip(frames, mask, strict=True)]
        return self.predictor.predict(*pad([reduction.apply(rows) if reduction else rows for rows in raw]))


def _prefixes(clips: int, steps: int) -> NDArray[np.bool_]:
    """A mask of clips of different lengths, the first as long as can be."""
    return np.arange(steps) < np.array([max(1, steps - 2 * clip) for clip in range(clips)])[:, None]


def _check_libraries() -> None:
    missing = [name for name in LIBRARIES if find_spec(name) is None]
    if missing:
        raise SettingsError(f"export needs {', '.join(missing)}: pip install 'hazard-video[onnx]'")


def _serialised(chain: _Head | _Chain, predictor: Predictor) -> bytes:
    import onnx

    arrays = tuple(torch.from_numpy(array) for array in chain.probe(*PROBES[0]))
    free = {0: Dim.DYNAMIC, 1: Dim.DYNAMIC}
    try:
        with _quiet():
            program = torch.onnx.export(
                chain.graph,
                arrays,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=list(chain.inputs),
                output_names=["probabilities"],
                dynamic_shapes=(free, free),
            )
        assert program is not None
        proto = program.model_proto
    except Exception as error:  # whatever the exporter meets in a network that it does not know
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise SettingsError(f"torch cannot export this model to ONNX: {said}") from error
    onnx.helper.set_model_props(proto, _metadata(chain, predictor))
    return proto.SerializeToString()


def _metadata(chain: _Head | _Chain, predictor: Predictor) -> dict[str, str]:
    """What whoever runs the file has to know; all values are text, lists and trees are JSON."""
    info = predictor.info
    is_whole = isinstance(chain, _Chain)
    spec = info.feature_spec
    before = (
        "sample each clip's frames as feature_spec.sampling says (upright RGB), fit them to the square as "
        "feature_spec.preprocessing says (features.transform.prepare); scaling is part of this file"
        if is_whole
        else "features as feature_spec says, after the reduction (a cache's /features)"
    )
    return {
        "model": f"{info.kind} {info.name}",
        "labels": json.dumps(info.labels),
        "positive_label": info.positive_label or "",
        "threshold": repr(info.threshold),
        "fingerprint": info.fingerprint,
        "feature_spec": json.dumps(spec),
        "expects": before
        + "; clips longer than max_steps thinned evenly, shorter ones padded with zeros at the end, mask True = real",
        "max_steps": str(info.settings.max_steps or ""),
        "inputs": json.dumps(chain.inputs),
    }


def _largest_difference(chain: _Head | _Chain, content: bytes) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    differences = []
    for clips, steps in PROBES:
        arrays = chain.probe(clips, steps)
        got = session.run(None, dict(zip(chain.inputs, arrays, strict=True)))[0]
        differences.append(float(np.abs(got - chain.expected(*arrays)).max()))
    return float(np.max(differences))


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells its developers a lot that no user can act on."""
    names = ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
