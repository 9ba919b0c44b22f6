"""Recurrent heads: LSTM, GRU, both on top of each other, and a bidirectional LSTM with attention."""

from dataclasses import replace
from functools import partial

from torch import Tensor, nn

from hazard.models.heads.base import HeadOptions, run_recurrent
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
        self.backward_width = options.hidden_size if options.bidirectional else 0
        self.width = options.hidden_size + self.backward_width

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the states (B, T, H)."""
        return run_recurrent(self.layer, x, mask)


def bilstm_attention(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """Make an LSTM that reads both ways, whatever `options.bidirectional` says, pooled by learned attention."""
    body = partial(RecurrentBody, nn.LSTM, options=replace(options, bidirectional=True))
    return TemporalHead(width, classes, options, body=body, pooling="attention")


def gru(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """Make a head of gated recurrent units (Cho et al. 2014), otherwise like `lstm`."""
    body = partial(RecurrentBody, nn.GRU, options=options)
    return TemporalHead(width, classes, options, body=body, pooling="mean")


def lstm(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """Make a head of an LSTM with forget gates (Hochreiter and Schmidhuber 1997) and the mean of its states."""
    body = partial(RecurrentBody, nn.LSTM, options=options)
    return TemporalHead(width, classes, options, body=body, pooling="mean")


class LstmGruBody(nn.Module):
    """(B, T, P) → (B, T, H): `options.layers` of LSTM, dropout, then as many of GRU."""

    def __init__(self, width: int, options: HeadOptions) -> None:
        super().__init__()
        self.lstm = RecurrentBody(nn.LSTM, width, options)
        self.drop = nn.Dropout(options.dropout)
        self.gru = RecurrentBody(nn.GRU, self.lstm.width, options)
        self.width, self.backward_width = self.gru.width, self.gru.backward_width

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the states (B, T, H)."""
        return self.gru(self.drop(self.lstm(x, mask)), mask)  # (B, T, H)


def lstm_gru(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """Make a head of an LSTM, a GRU on top of it, the mean of the GRU's states, and a linear layer."""
    body = partial(LstmGruBody, options=options)
    return TemporalHead(width, classes, options, body=body, pooling="mean")
