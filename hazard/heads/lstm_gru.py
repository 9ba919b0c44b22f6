"""The hybrid of the usual systems with a 3D network in front: an LSTM, then a GRU over its states."""

from functools import partial

from torch import Tensor, nn

from hazard.heads.common import HeadOptions, MeanPooling
from hazard.heads.recurrent import Recurrent
from hazard.heads.temporal import TemporalHead


class LstmThenGru(nn.Module):
    """(B, T, P) → (B, T, H); `options.layers` of each kind, with dropout between the kinds."""

    def __init__(self, width: int, options: HeadOptions) -> None:
        super().__init__()
        self.lstm = Recurrent(nn.LSTM, width, options)
        self.drop = nn.Dropout(options.dropout)
        self.gru = Recurrent(nn.GRU, self.lstm.width, options)
        self.width = self.gru.width

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, H)."""
        return self.gru(self.drop(self.lstm(x, mask)), mask)  # (B, T, H)


def lstm_gru(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """LSTM and GRU on top of each other, the mean of the GRU's states, a linear layer."""
    body = partial(LstmThenGru, options=options)
    return TemporalHead(width, classes, options, body=body, pooling=MeanPooling)
