"""LSTM and GRU layers as ONNX operators, for export only, since packed sequences cannot be exported.

ONNX's operators take the length of each sequence. The backward direction therefore starts at each clip's own end, and
the output after it is zero, as unpacking gives it. Shapes: B batch, T steps, P input width, H hidden width, d
directions, G gates.
"""

from typing import Any

import torch
from torch import Tensor, nn

ONNX_GATE_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2)}
"""ONNX's order of gates as indices into torch's: iofc where torch has ifco, zrh where torch has rzn."""

RECURRENT_OPSET = 14
"""Version of both operators, which every runtime of recent years supports."""


def run_onnx_recurrent(layer: nn.LSTM | nn.GRU, x: Tensor, mask: Tensor) -> Tensor:
    """Return the last layer's states (B, T, d H) of x (B, T, P), zero where padded.

    mask (B, T) must be True first and False after.
    """
    lengths = mask.sum(1).to(torch.int32)  # (B,)
    hidden = x.transpose(0, 1)  # (T, B, P)
    for number in range(layer.num_layers):
        hidden = _run_layer(layer, number, hidden, lengths)  # (T, B, d H)
    return hidden.transpose(0, 1)  # (B, T, d H)


def _run_layer(layer: nn.LSTM | nn.GRU, number: int, x: Tensor, lengths: Tensor) -> Tensor:
    suffixes = [f"l{number}", f"l{number}_reverse"][: 2 if layer.bidirectional else 1]
    kind, directions = layer.mode, len(suffixes)
    steps, batch = x.shape[:2]
    attributes: dict[str, Any] = {
        "hidden_size": layer.hidden_size,
        "direction": "bidirectional" if layer.bidirectional else "forward",
    }
    if kind == "GRU":
        attributes["linear_before_reset"] = 1  # as in torch
    states = [directions, batch, layer.hidden_size]
    outputs = [[steps, *states], *[states] * (2 if kind == "LSTM" else 1)]
    hidden = torch.onnx.ops.symbolic_multi_out(
        f"::{kind}",
        (x, *_stack_weights(layer, suffixes), lengths),
        attributes,
        dtypes=[x.dtype] * len(outputs),
        shapes=outputs,
        version=RECURRENT_OPSET,
    )[0]  # (T, d, B, H)
    return hidden.transpose(1, 2).flatten(2)  # (T, B, d H)


def _stack_weights(layer: nn.LSTM | nn.GRU, suffixes: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Return W (d, G H, P), R (d, G H, H) and the biases of both (d, 2 G H), with gates in ONNX's order."""

    def reorder_gates(name: str) -> Tensor:
        gates = torch.tensor(ONNX_GATE_ORDER[layer.mode])
        whole = [getattr(layer, f"{name}_{suffix}").unflatten(0, (len(gates), -1)) for suffix in suffixes]
        return torch.stack([parts[gates].flatten(0, 1) for parts in whole])

    return (
        reorder_gates("weight_ih"),
        reorder_gates("weight_hh"),
        torch.cat([reorder_gates("bias_ih"), reorder_gates("bias_hh")], dim=1),
    )
