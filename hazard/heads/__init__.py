"""Temporal heads. To add one: a file here, a line in HEADS, a YAML in configs/; the tests pick it up."""

from collections.abc import Callable

from torch import nn

from hazard.heads.bilstm_attention import BilstmAttentionHead
from hazard.heads.common import HeadOptions
from hazard.heads.lstm import LstmHead

HEADS: dict[str, Callable[[int, int, HeadOptions], nn.Module]] = {
    "lstm": LstmHead,
    "bilstm_attention": BilstmAttentionHead,
}
"""Name → maker of a head from feature width, number of classes and options."""
