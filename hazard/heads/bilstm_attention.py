"""A bidirectional LSTM whose states are averaged by learned attention."""

from torch import Tensor, nn

from hazard.heads.common import AttentionPooling, HeadOptions, MotionInputs, PooledPath, Projection, run_recurrent


class BilstmAttentionHead(nn.Module):
    """x (B, T, D), mask (B, T) → logits (B, K)."""

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
            bidirectional=True,
            dropout=between,
        )
        self.attend = AttentionPooling(2 * options.hidden_size)
        self.classify = nn.Sequential(nn.Dropout(options.dropout), nn.Linear(2 * options.hidden_size, classes))
        self.pooled = PooledPath(width, classes)

    def fit_statistics(self, x: Tensor, mask: Tensor, y: Tensor) -> None:
        """Scales, and the pooled path, from training clips."""
        self.inputs.fit(x, mask)
        self.pooled.fit(x, mask, y)

    def attention(self, x: Tensor, mask: Tensor) -> Tensor:
        """The learned weight of each step (B, T)."""
        return self.attend.weights(self._hidden(x, mask), mask)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, K)."""
        summary = self.attend(self._hidden(x, mask), mask)  # (B, 2 H)
        return self.classify(summary) + self.pooled(x, mask)  # (B, K)

    def _hidden(self, x: Tensor, mask: Tensor) -> Tensor:
        steps = self.project(self.inputs(x, mask))  # (B, T, P)
        return run_recurrent(self.lstm, steps, mask)  # (B, T, 2 H)
