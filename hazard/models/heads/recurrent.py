"""A bidirectional LSTM whose states are averaged by learned attention."""

from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from hazard.models.heads.base import AttentionPooling, HeadOptions, MeanPooling, run_recurrent
from hazard.models.heads.temporal_head import TemporalHead


class RecurrentBody(nn.Module):
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


def bilstm_attention(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """Reads both ways whatever `options.bidirectional` says."""
    body = partial(RecurrentBody, nn.LSTM, options=replace(options, bidirectional=True))
    return TemporalHead(width, classes, options, body=body, pooling=AttentionPooling)


def gru(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """Gated recurrent units as in Cho et al. 2014; the head is otherwise that of `lstm`."""
    body = partial(RecurrentBody, nn.GRU, options=options)
    return TemporalHead(width, classes, options, body=body, pooling=MeanPooling)


def lstm(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """LSTM as in Hochreiter and Schmidhuber 1997, with forget gates."""
    body = partial(RecurrentBody, nn.LSTM, options=options)
    return TemporalHead(width, classes, options, body=body, pooling=MeanPooling)


class LstmGruBody(nn.Module):
    """(B, T, P) → (B, T, H); `options.layers` of each kind, with dropout between the kinds."""

    def __init__(self, width: int, options: HeadOptions) -> None:
        super().__init__()
        self.lstm = RecurrentBody(nn.LSTM, width, options)
        self.drop = nn.Dropout(options.dropout)
        self.gru = RecurrentBody(nn.GRU, self.lstm.width, options)
        self.width = self.gru.width

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, H)."""
        return self.gru(self.drop(self.lstm(x, mask)), mask)  # (B, T, H)


def lstm_gru(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """LSTM and GRU on top of each other, the mean of the GRU's states, a linear layer."""
    body = partial(LstmGruBody, options=options)
    return TemporalHead(width, classes, options, body=body, pooling=MeanPooling)
