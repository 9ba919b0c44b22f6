"""The classic head: an LSTM over the steps, the mean of its states, a linear layer."""

from torch import Tensor, nn

from hazard.heads.common import HeadOptions, MotionInputs, PooledPath, Projection, masked_mean, run_recurrent


class LstmHead(nn.Module):
    """x (B, T, D), mask (B, T) → logits (B, K). LSTM as in Hochreiter and Schmidhuber 1997, with forget gates."""

    def __init__(self, width: int, classes: int, options: HeadOptions) -> None:
        super().__init__()
        self.inputs = MotionInputs(width, options.inputs)
        self.project = Projection(self.inputs.width, options)
        between = options.dropout if options.layers > 1 else 0.0
        self.lstm = nn.LSTM(
            self.project.width,
            options.hidden_size,
            options.layers,
            batch_first=True,
            bidirectional=options.bidirectional,
            dropout=between,
        )
        directions = 2 if options.bidirectional else 1
        self.classify = nn.Sequential(nn.Dropout(options.dropout), nn.Linear(directions * options.hidden_size, classes))
        self.pooled = PooledPath(width, classes)

    def fit_statistics(self, x: Tensor, mask: Tensor, y: Tensor) -> None:
        """Scales, and the pooled path, from training clips."""
        self.inputs.fit(x, mask)
        self.pooled.fit(x, mask, y)

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """Every real step counts alike (B, T)."""
        return mask / mask.sum(1, keepdim=True).clamp(min=1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, K)."""
        steps = self.project(self.inputs(x, mask))  # (B, T, P)
        hidden = run_recurrent(self.lstm, steps, mask)  # (B, T, H)
        return self.classify(masked_mean(hidden, mask)) + self.pooled(x, mask)  # (B, K)
