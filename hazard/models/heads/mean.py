"""The head `mean`: an MLP on the mean step, to measure a head that learns but ignores order."""

from itertools import pairwise

from torch import Tensor, nn

from hazard.models.heads.base import HeadOptions, Projection, make_last_layer
from hazard.models.heads.motion_inputs import MotionInputs
from hazard.models.heads.pooled_ridge import PooledRidge
from hazard.models.heads.step_pooling import MeanPooling


class MeanHead(nn.Module):
    """x (B, T, D), mask (B, T) → logits (B, K).

    The steps are averaged before anything is learned. Of their order the head sees only what difference inputs and the
    pooled ridge, which compare neighbouring steps, tell. `options.bidirectional` and `options.pooling` have no effect.
    """

    def __init__(self, width: int, classes: int, options: HeadOptions) -> None:
        super().__init__()
        self.inputs = MotionInputs(width, options.inputs)
        self.pooling = MeanPooling(self.inputs.width)
        self.project = Projection(self.inputs.width, options)
        widths = [self.project.width, *[options.hidden_size] * options.layers]
        layers = [
            nn.Sequential(nn.Linear(before, after), nn.GELU(), nn.Dropout(options.dropout))
            for before, after in pairwise(widths)
        ]
        self.classify = nn.Sequential(*layers, make_last_layer(options.hidden_size, classes, options))
        self.pooled = PooledRidge(width, classes) if options.pooled_path else None

    def fit_statistics(self, x: Tensor, mask: Tensor, ridge: nn.Module | None) -> None:
        """Fit the input scales on training clips, and take over a fitted pooled ridge."""
        self.inputs.fit(x, mask)
        if self.pooled is not None and ridge is not None:
            self.pooled.load_state_dict(ridge.state_dict())

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return equal weights (B, T) for the real steps."""
        return self.pooling.weights(x, mask)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return logits (B, K)."""
        summary = self.pooling(self.inputs(x, mask), mask)  # (B, n D)
        logits = self.classify(self.project(summary))  # (B, K)
        return logits if self.pooled is None else logits + self.pooled(x, mask)
