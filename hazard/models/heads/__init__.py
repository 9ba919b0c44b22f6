"""Temporal heads. To add one: a file here, a line in HEADS, a YAML in configs/; the tests pick it up."""

from collections.abc import Callable

from torch import nn

from hazard.heads.bilstm_attention import bilstm_attention
from hazard.heads.common import HeadOptions
from hazard.heads.gru import gru
from hazard.heads.lstm import lstm
from hazard.heads.lstm_gru import lstm_gru
from hazard.heads.mean import MeanHead
from hazard.heads.tcn import tcn
from hazard.heads.transformer import transformer

HEADS: dict[str, Callable[[int, int, HeadOptions], nn.Module]] = {
    "lstm": lstm,
    "bilstm_attention": bilstm_attention,
    "gru": gru,
    "lstm_gru": lstm_gru,
    "transformer": transformer,
    "tcn": tcn,
    "mean": MeanHead,
}
"""Name → maker of a head from feature width, number of classes and options."""
