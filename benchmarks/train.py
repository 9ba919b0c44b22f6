"""The training loop of stage two compared with the usual one: CPU time of one thread for one epoch of an LSTM.

    python benchmarks/train.py                  on a generated cache of UCF101's size: 9,537 clips, 12 × 512, 101 labels
    python benchmarks/train.py --compare        and every head and baseline on it once, with the command (wall time)

The loops take turns, round by round. The results are medians over the rounds, and ratios. The usual loop is PyTorch's
`DataLoader` over HDF5 with one read per item, fp32 and the same LSTM. It runs on a file with one contiguous data set,
which is the fastest layout in HDF5, and on the cache itself. The bound is the least work possible: the multiplications
of the LSTM and the classifier, once forward and twice backward, at the best rate of a large matrix product in the same
round and precision.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import click
import h5py
import numpy as np
import torch
from measure import cpu_seconds
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from features.cache.hdf5 import read_cache, write_cache
from features.cache.tables import ClipTable, make_failure_table
from features.spec import FeatureSpec, Preprocessing, Sampling
from hazard.data.sequences import load_sequences
from hazard.models.auto_size import resolve_sizes
from hazard.models.settings import TrainSettings
from hazard.training.device_data import DeviceClips
from hazard.training.head_trainer import HeadTrainer
from hazard.training.malloc import keep_freed_memory
from hazard.training.precision import has_bf16

STEPS, WIDTH, HIDDEN, LABELS, BATCH = 12, 512, 256, 101, 256
PRODUCTS = ((4096, 4096, 1024), (3072, 1024, 1024), (2048, 2048, 2048))
"""(m, k, n) of large matrix products. The fastest of them gives the peak rate."""
USUAL = "DataLoader over HDF5, contiguous"


def write_generated(path: Path, clips: int) -> None:
    """Write a cache with stage one's writer, and a contiguous copy. Labels differ a little in mean and movement."""
    rng = np.random.default_rng(0)
    y = np.arange(clips) % LABELS
    signs = rng.standard_normal((2, LABELS, 1, WIDTH)).astype(np.float32) * 0.3
    rows = rng.standard_normal((clips, STEPS, WIDTH), np.float32) * (1 + signs[1, y]) + signs[0, y]
    names = np.array([f"c{k:03d}" for k in y])
    paths = np.array([f"c{k:03d}/g{i // LABELS % 25:02d}_{i:05d}.avi" for i, k in enumerate(y)])
    order = np.argsort(paths)
    text = {
        "path": paths[order],
        "label": names[order],
        "group": np.array([f"{path[:8]}" for path in paths[order]]),
        "split": np.full(clips, ""),
        "view": np.full(clips, "none"),
        "digest": np.full(clips, "d" * 64),
        "status": np.full(clips, "ok"),
    }
    numbers = {
        "start": np.arange(clips) * STEPS,
        "length": np.full(clips, STEPS),
        "duration": np.full(clips, 7.0),
        "decoded_share": np.ones(clips),
        "size_bytes": np.ones(clips, np.int64),
        "mtime_ns": np.ones(clips, np.int64),
    }
    spec = FeatureSpec(
        sampling=Sampling(frames=STEPS),
        preprocessing=Preprocessing(),
        backbone="generated",
        weights="random",
        weights_digest="d" * 64,
        pooling="avg",
    )
    features = rows[order].reshape(-1, WIDTH).astype(np.float16)
    with path.open("w+b") as file:
        write_cache(
            file,
            [(features, np.tile(np.arange(STEPS) * 0.5, clips))],
            width=WIDTH,
            spec=spec,
            reduction=None,
            clips=ClipTable(**text, **numbers),
            failures=make_failure_table([]),
        )
    with h5py.File(path.with_suffix(".contiguous.h5"), "w") as h5:
        h5["x"] = features.reshape(clips, STEPS, WIDTH)
        h5["y"] = y[order]


class ContiguousDataset(Dataset):
    """Features (clips, steps, width) in one HDF5 data set, read one clip at a time."""

    def __init__(self, path: Path, clips: int) -> None:
        self.path, self.clips, self.file = path, clips, None

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        self.file = self.file or h5py.File(self.path, "r")
        return torch.from_numpy(self.file["x"][item].astype(np.float32)), int(self.file["y"][item])


class CacheDataset(ContiguousDataset):
    """The rows of a cache, with its chunks and checksums, read one clip at a time."""

    def __init__(self, path: Path, clips: int, y: np.ndarray) -> None:
        super().__init__(path, clips)
        self.y = y

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        self.file = self.file or h5py.File(self.path, "r")
        rows = slice(item * STEPS, (item + 1) * STEPS)
        return torch.from_numpy(self.file["features"][rows].astype(np.float32)), int(self.y[item])


class UsualHead(nn.Module):
    """An LSTM, the mean over time and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.classify = nn.LSTM(WIDTH, HIDDEN, batch_first=True), nn.Linear(HIDDEN, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.lstm(x)[0].mean(1))


def make_usual_epoch(data: Dataset) -> Callable[[], None]:
    head = UsualHead()
    adam = torch.optim.AdamW(head.parameters(), 1e-3)
    loader = DataLoader(data, BATCH, shuffle=True)

    def epoch() -> None:
        for x, y in loader:
            loss = F.cross_entropy(head(x), y)
            adam.zero_grad()
            loss.backward()
            adam.step()

    return epoch


def make_our_epoch(clips: DeviceClips, precision: str) -> Callable[[], None]:
    settings = TrainSettings(
        head="lstm", inputs=("features",), projection=0, hidden_size=HIDDEN, members=1, batch_size=BATCH, dropout=0,
        label_smoothing=0, precision=precision, device="cpu", epochs=10_000, lr=1e-4,
    )  # fmt: skip
    every = torch.arange(len(clips.y))
    with torch.random.fork_rng():
        member = HeadTrainer(
            clips, every, every[:0], resolve_sizes(settings, clips=len(every), classes=LABELS), number=0, classes=LABELS
        )
    numbers = iter(range(1, 10_000))
    return lambda: (member.run_epoch(next(numbers)), None)[1]


def measure_peak(dtype: torch.dtype) -> float:
    """Return the highest measured rate of a matrix product, in operations per second."""
    best = 0.0
    for m, k, n in PRODUCTS:
        a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        for _ in range(4):
            began = cpu_seconds()
            a @ b
            best = max(best, 2 * m * k * n / (cpu_seconds() - began))
    return best


def count_operations(clips: int) -> float:
    """Return the operations of one epoch: LSTM input, LSTM recurrence and classifier, once forward, twice backward."""
    return 3 * 2 * clips * (STEPS * (WIDTH + HIDDEN) * 4 * HIDDEN + HIDDEN * LABELS)


@dataclass(frozen=True)
class Times:
    """Seconds per round of each loop and each bound."""

    rounds: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def ratio(self, name: str, against: str) -> float:
        """Return the median of the ratios per round, because the clock rate of a shared machine varies."""
        pairs = zip(self.rounds[name], self.rounds[against], strict=True)
        return statistics.median(a / b for a, b in pairs)


def measure(contenders: dict[str, Callable[[], None]], precisions: list[str], clips: int, rounds: int) -> Times:
    seconds: dict[str, list[float]] = {name: [] for name in [*contenders, *(f"bound {p}" for p in precisions)]}
    for number in range(rounds + 1):  # the first is to warm up
        for name, epoch in contenders.items():
            began = cpu_seconds()
            epoch()
            if number:
                seconds[name].append(cpu_seconds() - began)
        for precision in precisions if number else ():
            rate = measure_peak(torch.bfloat16 if precision == "bf16" else torch.float32)
            seconds[f"bound {precision}"].append(count_operations(clips) / rate)
    return Times(seconds)


def print_epochs(times: Times, precisions: list[str]) -> None:
    click.echo(f"\n{'one epoch':<38} {'CPU s':>7}   {'vs. the usual loop':>21}   {'vs. its bound':>17}")
    for name in times.rounds:
        precision = next((p for p in precisions if name.endswith(p)), "fp32")
        bound = times.ratio(name, f"bound {precision}")
        click.echo(f"  {name:<36} {times.median(name):7.2f}   {times.ratio(name, USUAL):21.2f}   {bound:17.2f}")


def compare_all(cache: Path, folder: Path) -> None:
    program = Path(__file__).parent.parent / "train_temporal.py"
    began = time.perf_counter()
    subprocess.run([sys.executable, program, cache, "-o", folder, "--compare", "--precision", "auto"], check=True)
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    click.echo(
        f"--compare on {cache.name}: {(time.perf_counter() - began) / 60:.1f} minutes, "
        f"{(spent.ru_utime + spent.ru_stime) / 60:.1f} of CPU"
    )


@click.command()
@click.option("--clips", type=click.IntRange(BATCH), default=9537, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--compare", is_flag=True, help="Also time one run of --compare on that cache.")
def main(clips: int, rounds: int, compare: bool) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as the command does; it also helps the other loops
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "generated.h5"
        write_generated(path, clips)
        began = time.process_time()
        sequences = load_sequences(read_cache(path))
        click.echo(f"{clips} clips read and checked in {time.process_time() - began:.1f} s (once per run)")
        ours = DeviceClips.load(sequences, torch.device("cpu"))
        precisions = ["fp32", *(["bf16"] if has_bf16(torch.device("cpu")) else [])]
        contenders = {
            USUAL: make_usual_epoch(ContiguousDataset(path.with_suffix(".contiguous.h5"), clips)),
            "DataLoader over HDF5, the cache": make_usual_epoch(CacheDataset(path, clips, sequences.y)),
        } | {f"this project, {precision}": make_our_epoch(ours, precision) for precision in precisions}
        print_epochs(measure(contenders, precisions, clips, rounds), precisions)
        if compare:
            compare_all(path, Path(name) / "run")


if __name__ == "__main__":
    main()
