"""What recurrent heads share."""

from torch import Tensor, nn

from hazard.heads.common import HeadOptions, run_recurrent


class Recurrent(nn.Module):
    """A recurrent layer, `nn.LSTM` or `nn.GRU`, as the body of a head: (B, T, P) → (B, T, H), both directions in H."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], width: int, options: HeadOptions) -> None:
        super().__init__()
        self.layer = kind(
            width,
            options.hidden_size,
            options.layers,
            batch_first=True,
            bidirectional=options.bidirectional,
            dropout=options.dropout if options.layers > 1 else 0.0,
        )
        self.width = options.hidden_size * (2 if options.bidirectional else 1)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, H)."""
        return run_recurrent(self.layer, x, mask)
