"""A bidirectional LSTM whose states are averaged by learned attention."""

from dataclasses import replace
from functools import partial

from torch import nn

from hazard.heads.common import AttentionPooling, HeadOptions
from hazard.heads.recurrent import Recurrent
from hazard.heads.temporal import TemporalHead


def bilstm_attention(width: int, classes: int, options: HeadOptions) -> TemporalHead:
    """Reads both ways whatever `options.bidirectional` says."""
    body = partial(Recurrent, nn.LSTM, options=replace(options, bidirectional=True))
    return TemporalHead(width, classes, options, body=body, pooling=AttentionPooling)
