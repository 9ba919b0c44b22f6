"""The head `tcn`: dilated convolutions along time, both ways, with skip connections (Bai, Kolter and Koltun 2018)."""

from functools import partial

from torch import Tensor, nn

from hazard.models.heads.base import HeadOptions
from hazard.models.heads.temporal_head import TemporalHead

KERNEL_STEPS = 3


class StepConvolution(nn.Module):
    """(B, T, P) → (B, T, H) over `KERNEL_STEPS` steps, `dilation` apart. Padding counts as zero, as beyond the ends."""

    def __init__(self, width: int, hidden: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(width, hidden, KERNEL_STEPS, padding=dilation, dilation=dilation)
        # Normalised per step: statistics over a batch or over time would depend on other clips and on the padding.
        self.finish = nn.Sequential(nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (B, T, H), zero at padded steps."""
        real = mask.unsqueeze(-1)  # (B, T, 1)
        convolved = self.convolve((x * real).transpose(1, 2)).transpose(1, 2)  # (B, T, H)
        return self.finish(convolved) * real


class TcnBlock(nn.Module):
    """Two convolutions, the second with twice the dilation, and a skip connection."""

    def __init__(self, width: int, hidden: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.first = StepConvolution(width, hidden, dilation=dilation, dropout=dropout)
        self.second = StepConvolution(hidden, hidden, dilation=2 * dilation, dropout=dropout)
        self.skip = nn.Identity() if width == hidden else nn.Linear(width, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return (B, T, H) of x (B, T, P)."""
        return self.skip(x) + self.second(self.first(x, mask), mask)


class TcnBody(nn.Module):
    """(B, T, P) → (B, T, H): one block per layer. One layer sees 3 steps to each side, two see 15, three see 63."""

    backward_width = 0

    def __init__(self, width: int, options: HeadOptions) -> None:
        super().__init__()
        self.width = options.hidden_size
        widths = [width, *[self.width] * options.layers]
        self.blocks = nn.ModuleList(
            TcnBlock(widths[i], self.width, dilation=4**i, dropout=options.dropout) for i in range(options.layers)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the states (B, T, H)."""
        for block in self.blocks:
            x = block(x, mask)  # (B, T, H)
        return x


def tcn(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """Make a TCN head; `options.bidirectional` has no effect, since a convolution sees both directions."""
    return TemporalHead(width, classes, options, body=partial(TcnBody, options=options), pooling="mean")
