"""Backbone: the description of a frozen network, available without building it or importing torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from features.spec import Preprocessing

if TYPE_CHECKING:  # torch takes seconds to import, and a run with a cached converted network does not need it
    from torch import Tensor, nn

RANDOM_SEED = 0
"""Seed of random weights."""

Module: TypeAlias = "nn.Module"
StateDict: TypeAlias = "Mapping[str, Tensor]"


def _return_unchanged(network: Module) -> Module:
    return network


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier: normalised frames (B, 3, S, S) to a feature map (B, `width`, h, w).

    A 3D network maps snippets (B, 3, L, S, S) to (B, `width`, t, h, w). A transformer returns (B, `width`, tokens). A
    network that pools its own features returns (B, `width`).
    """

    build: Callable[[], Module]
    """Builds the network. Its tensors have their published names, except for a common prefix."""
    width: int
    """Numbers in a feature vector, D."""
    weights_url: Callable[[], str]
    """Returns the URL of the published weights, or an empty text if there are none."""
    licence: str
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    snippet: tuple[int, float] | None = None
    """Frames per snippet and frames per second of a 3D network, as it was trained; None for other networks."""
    is_pooled: bool = False
    """Whether the network pools its own features."""
    accepts_any_size: bool = True
    """Whether it accepts squares of another size than in training, as convolutional networks do."""
    wrap: Callable[[Module], Module] = _return_unchanged
    """Turns the built network, with its weights loaded, into the one that returns feature maps."""
    convert: "Callable[[StateDict, Module], StateDict] | None" = None
    """Renames the tensors of a published state dict to those of the network."""
    calibration_side: int = 96
    """Side, in pixels, of the noise on which the batch norms of random weights are calibrated."""
    library: str = ""
    """Name and version of the library that builds the network; empty for torchvision."""
    no_weights_message: str = ""
    """Error text if there is no weights URL."""
