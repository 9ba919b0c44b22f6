"""The classic head: an LSTM over the steps, the mean of its states, a linear layer."""

from functools import partial

from torch import nn

from hazard.heads.common import HeadOptions, MeanPooling
from hazard.heads.recurrent import Recurrent
from hazard.heads.temporal import TemporalHead


def lstm(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """LSTM as in Hochreiter and Schmidhuber 1997, with forget gates."""
    body = partial(Recurrent, nn.LSTM, options=options)
    return TemporalHead(width, classes, options, body=body, pooling=MeanPooling)
