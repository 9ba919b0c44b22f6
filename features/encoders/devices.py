"""Available devices, found without importing torch if there can be only the CPU."""

import ctypes
from pathlib import Path

from features.errors import SettingsError

CUDA_DRIVERS = ("libcuda.so.1", "nvcuda.dll")
"""Libraries that torch opens to reach NVIDIA GPUs."""
AMD_DEVICE = Path("/dev/kfd")
"""Device file of AMD GPUs."""


def pick_devices(name: str) -> list[str]:
    """Return the devices that a setting means: `auto` (every GPU, else the CPU), `cpu`, `cuda` (every GPU) or `cuda:N`.

    Raises SettingsError for another name or a device that does not exist.
    """
    count = 0 if name == "cpu" else _count_gpus()
    if name == "cpu" or (name == "auto" and not count):
        return ["cpu"]
    if name in ("auto", "cuda") and count:
        return [f"cuda:{index}" for index in range(count)]
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number.isdecimal() or name == "cuda"):
        raise SettingsError(f"unknown device '{name}'; choose auto, cpu, cuda or cuda:N")
    if name == "cuda" or int(number) >= count:
        raise SettingsError(f"device '{name}' does not exist: {count} CUDA devices found; use cpu or auto")
    return [f"cuda:{int(number)}"]


def _count_gpus() -> int:
    if not _has_driver():
        return 0
    import torch

    return torch.cuda.device_count()


def _has_driver() -> bool:
    if AMD_DEVICE.exists():
        return True
    for name in CUDA_DRIVERS:
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        return True
    return False
