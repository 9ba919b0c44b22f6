"""Temporal heads. To add one, write a file here, a line in HEADS and a YAML in configs/; the tests pick it up."""

from collections.abc import Callable

from torch import nn

from hazard.models.heads.base import HeadOptions
from hazard.models.heads.mean import MeanHead
from hazard.models.heads.recurrent import bilstm_attention, gru, lstm, lstm_gru
from hazard.models.heads.tcn import tcn
from hazard.models.heads.transformer import transformer

HEADS: dict[str, Callable[[int, int, HeadOptions], nn.Module]] = {
    "lstm": lstm,
    "bilstm_attention": bilstm_attention,
    "gru": gru,
    "lstm_gru": lstm_gru,
    "transformer": transformer,
    "tcn": tcn,
    "mean": MeanHead,
}
"""Name → function that makes a head from feature width, number of classes and options."""
