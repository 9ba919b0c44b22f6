"""Dilated convolutions along time, with residual connections (Bai, Kolter and Koltun 2018), seeing both ways."""

from functools import partial

from torch import Tensor, nn

from hazard.models.heads.base import HeadOptions, MeanPooling
from hazard.models.heads.temporal_head import TemporalHead

KERNEL_STEPS = 3


class StepConvolution(nn.Module):
    """(B, T, P) → (B, T, H) over `KERNEL_STEPS` steps that lie `dilation` apart; padding counts as zero, as the ends do."""

    def __init__(self, width: int, hidden: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.convolve = nn.Conv1d(width, hidden, KERNEL_STEPS, padding=dilation, dilation=dilation)
        # A step at a time: statistics over a batch or over time would tell a clip of its neighbours and its padding.
        self.finish = nn.Sequential(nn.LayerNorm(hidden), nn.GELU(), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Zero at padded steps."""
        real = mask.unsqueeze(-1)  # (B, T, 1)
        seen = self.convolve((x * real).transpose(1, 2)).transpose(1, 2)  # (B, T, H)
        return self.finish(seen) * real


class TcnBlock(nn.Module):
    """Two convolutions, the second looking twice as far, beside a connection that skips them."""

    def __init__(self, width: int, hidden: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.first = StepConvolution(width, hidden, dilation=dilation, dropout=dropout)
        self.second = StepConvolution(hidden, hidden, dilation=2 * dilation, dropout=dropout)
        self.skip = nn.Identity() if width == hidden else nn.Linear(width, hidden)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, P) → (B, T, H)."""
        return self.skip(x) + self.second(self.first(x, mask), mask)


class TcnBody(nn.Module):
    """(B, T, P) → (B, T, H): a block a layer; one sees 3 steps to each side, two 15, three 63."""

    def __init__(self, width: int, options: HeadOptions) -> None:
        super().__init__()
        self.width = options.hidden_size
        widths = [width, *[self.width] * options.layers]
        self.blocks = nn.ModuleList(
            TcnBlock(widths[i], self.width, dilation=4**i, dropout=options.dropout) for i in range(options.layers)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, H)."""
        for block in self.blocks:
            x = block(x, mask)  # (B, T, H)
        return x


def tcn(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """`options.bidirectional` has no say: a convolution looks both ways."""
    return TemporalHead(width, classes, options, body=partial(TcnBody, options=options), pooling=MeanPooling)
