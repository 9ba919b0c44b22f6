"""Precision of training: fp32, or bf16 for matrix products if the device has instructions for it."""

import logging

import torch

MIN_BF16_HIDDEN_SIZE = 128
"""Smallest recurrent state for bf16: below it conversions cost more than faster products save."""
MIN_BF16_BATCH_SIZE = 64
"""Smallest batch for bf16."""

log = logging.getLogger(__name__)


def has_bf16(device: torch.device) -> bool:
    """Return whether `device` multiplies bf16 matrices in hardware; emulated bf16 is slower than fp32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    try:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and _has_cpu_flag("avx512_bf16", "amx_bf16", "bf16")
    except (AttributeError, RuntimeError):  # a build without oneDNN
        return False


def uses_bf16(precision: str, device: torch.device, *, hidden_size: int, batch_size: int) -> bool:
    """Return whether `precision` (auto | fp32 | bf16) means bf16 on `device`.

    If bf16 is requested and the device lacks it, log a warning and return False.
    """
    if precision == "fp32":
        return False
    if not has_bf16(device):
        if precision == "bf16":
            log.warning("this %s has no bf16 instructions; training in fp32", device.type)
        return False
    return precision == "bf16" or (hidden_size >= MIN_BF16_HIDDEN_SIZE and batch_size >= MIN_BF16_BATCH_SIZE)


def _has_cpu_flag(*names: str) -> bool:
    """Return whether Linux lists one of `names` among the CPU's flags.

    Without any list of flags return True, so that oneDNN's answer alone decides.
    """
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line.split() for line in file if line.lower().startswith(("flags", "features"))), [])
    except OSError:
        return True
    return not flags or any(name in flags for name in names)
