"""Conversion of a PyTorch backbone to an OpenVINO network."""

import warnings
from pathlib import Path

import torch

from features.backbones.loading import load_backbone
from features.encoders.openvino_encoder import import_openvino, row_shape
from features.encoders.torch_encoder import FeatureNetwork, fold_batch_norms
from features.errors import SettingsError
from features.spec import FeatureSpec


def convert_network(spec: FeatureSpec, weights: Path | None, folder: Path) -> Path:
    """Write the spec's network as an OpenVINO model and return its path. Raises SettingsError if that fails."""
    openvino = import_openvino()
    network = fold_batch_norms(load_backbone(spec.backbone, weights))
    features = FeatureNetwork(network, spec.preprocessing, spec.pooling, torch.float32).eval()
    with warnings.catch_warnings():  # OpenVINO traces with torch.jit, which warns that it is deprecated
        warnings.simplefilter("ignore")
        try:
            model = openvino.convert_model(features, example_input=torch.zeros(1, *row_shape(spec), dtype=torch.uint8))
        except Exception as error:  # not every network of the libraries can be converted
            reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
            raise SettingsError(
                f"OpenVINO cannot convert backbone '{spec.backbone}' ({reason}); use --runtime torch"
            ) from None
    path = folder / "backbone.xml"
    openvino.save_model(model, path, compress_to_fp16=False)
    return path
