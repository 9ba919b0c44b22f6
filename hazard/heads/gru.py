"""A GRU in the place of the LSTM: three quarters of its weights."""

from functools import partial

from torch import nn

from hazard.heads.common import HeadOptions, MeanPooling
from hazard.heads.recurrent import Recurrent
from hazard.heads.temporal import TemporalHead


def gru(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """Gated recurrent units as in Cho et al. 2014; the head is otherwise that of `lstm`."""
    body = partial(Recurrent, nn.GRU, options=options)
    return TemporalHead(width, classes, options, body=body, pooling=MeanPooling)
