"""Backbone: what there is to know of a frozen network before it is built, torch not yet imported."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from features.spec import Preprocessing

if TYPE_CHECKING:  # torch takes seconds to import, and a run whose network is kept converted does without
    from torch import Tensor, nn

RANDOM_SEED = 0
"""Of random weights."""

Module: TypeAlias = "nn.Module"
StateDict: TypeAlias = "Mapping[str, Tensor]"


def _return_unchanged(network: Module) -> Module:
    return network


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier: normalised (B, 3, S, S) to a feature map (B, `width`, h, w).

    A 3D one takes snippets (B, 3, L, S, S) to (B, `width`, t, h, w); a transformer gives (B, `width`, tokens); one that
    pools by itself gives (B, `width`).
    """

    build: Callable[[], Module]
    """The network, its tensors named as they are published, but for whatever they all begin with."""
    width: int
    weights_url: Callable[[], str]
    """Where published weights lie; empty where there are none."""
    licence: str
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    snippet: tuple[int, float] | None = None
    """Of a 3D network: frames a snippet and frames a second, as it was trained."""
    is_pooled: bool = False
    accepts_any_size: bool = True
    """Whether it takes squares of another side than it was trained on, as networks of convolutions do."""
    wrap: Callable[[Module], Module] = _return_unchanged
    """From the network that was built, its weights in place, to the one that gives the maps."""
    convert: "Callable[[StateDict, Module], StateDict] | None" = None
    """From a state dict as its authors published it to the names of the network's tensors."""
    calibration_side: int = 96
    """Side of the pictures on which batch norms of random weights are calibrated."""
    library: str = ""
    """Name and version of what builds the network, where that is not torchvision."""
    no_weights_message: str = ""
    """What to say where there is no address."""
