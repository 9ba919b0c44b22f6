"""Available devices, found without importing torch if there can be only the CPU."""

import ctypes
from pathlib import Path

from features.errors import SettingsError

CUDA_DRIVERS = ("libcuda.so.1", "nvcuda.dll")
"""Libraries that torch opens to reach NVIDIA GPUs."""
AMD_DEVICE = Path("/dev/kfd")
"""Device file of AMD GPUs."""
METAL = Path("/System/Library/Frameworks/Metal.framework")
"""Library through which PyTorch reaches the GPU of a Mac."""


def pick_devices(name: str) -> list[str]:
    """Return the devices that a setting means: `auto`, `cpu`, `cuda` (every CUDA GPU), `cuda:N` or `mps` (Apple's GPU).

    `auto` means every CUDA GPU, else Apple's GPU, else the CPU. Raises SettingsError for another name or a device that
    does not exist.
    """
    if name == "mps":
        check_mps()
        return ["mps"]
    count = 0 if name == "cpu" else _count_gpus()
    if name == "cpu" or (name == "auto" and not count):
        return ["mps" if name == "auto" and has_mps() else "cpu"]
    if name in ("auto", "cuda") and count:
        return [f"cuda:{index}" for index in range(count)]
    kind, _, number = name.partition(":")
    if kind != "cuda" or not (number.isdecimal() or name == "cuda"):
        raise SettingsError(f"unknown device '{name}'; choose auto, cpu, cuda, cuda:N or mps")
    if name == "cuda" or int(number) >= count:
        raise SettingsError(f"device '{name}' does not exist: {count} CUDA devices found; use cpu or auto")
    return [f"cuda:{int(number)}"]


def has_mps() -> bool:
    """Return whether PyTorch can use the GPU of a Mac. A virtual Mac may offer one that has no memory."""
    if not METAL.exists():
        return False
    import torch

    if not torch.backends.mps.is_available():
        return False
    try:
        torch.zeros(1, device="mps")
    except RuntimeError:
        return False
    return True


def check_mps() -> None:
    """Check that there is a GPU for the device `mps`. Raises SettingsError."""
    if not has_mps():
        raise SettingsError("device 'mps' does not exist: no Apple GPU found; use cpu or auto")


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
