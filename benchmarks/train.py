"""Stage two's loop against the usual one: an epoch of an LSTM, side by side, as CPU time of one thread and as ratios.

    python benchmarks/train.py                  on a generated cache of UCF101's size: 9,537 clips, 12 × 512, 101 labels
    python benchmarks/train.py --compare        and every head and baseline on it once, by the command (wall time)

Contenders take turns, round by round; figures are medians over the rounds. The usual one is PyTorch's `DataLoader` over
HDF5, an item a read, fp32, the same LSTM: over a file with one contiguous data set, the best that HDF5 can do, and over
the cache itself. The bound is what must be done: the LSTM's and the classifier's multiplications, forward once and
backward twice, at the best rate of a large matrix product in the same round and precision.
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
from hazard.training.malloc import keep_freed_memory
from hazard.training.member import HeadTrainer
from hazard.training.precision import has_bf16

STEPS, WIDTH, HIDDEN, LABELS, BATCH = 12, 512, 256, 101, 256
PRODUCTS = ((4096, 4096, 1024), (3072, 1024, 1024), (2048, 2048, 2048))
"""(m, k, n) of large matrix products; the best of them is the peak."""
USUAL = "DataLoader over HDF5, contiguous"


def write_generated(path: Path, clips: int) -> None:
    """A cache of `clips` clips by stage one's own writer, labels told apart by a little of their mean and movement."""
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


class Contiguous(Dataset):
    """(clips, steps, width) in one data set: a clip is one read."""

    def __init__(self, path: Path, clips: int) -> None:
        self.path, self.clips, self.file = path, clips, None

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        self.file = self.file or h5py.File(self.path, "r")
        return torch.from_numpy(self.file["x"][item].astype(np.float32)), int(self.file["y"][item])


class OfCache(Contiguous):
    """The cache as it is: chunks of rows, checksums."""

    def __init__(self, path: Path, clips: int, y: np.ndarray) -> None:
        super().__init__(path, clips)
        self.y = y

    def __getitem__(self, item: int) -> tuple[Tensor, int]:
        self.file = self.file or h5py.File(self.path, "r")
        rows = slice(item * STEPS, (item + 1) * STEPS)
        return torch.from_numpy(self.file["features"][rows].astype(np.float32)), int(self.y[item])


class UsualHead(nn.Module):
    """LSTM, mean over time, linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.classify = nn.LSTM(WIDTH, HIDDEN, batch_first=True), nn.Linear(HIDDEN, LABELS)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.lstm(x)[0].mean(1))


def usual_epoch(data: Dataset) -> Callable[[], None]:
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


def our_epoch(clips: DeviceClips, precision: str) -> Callable[[], None]:
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


def peak(dtype: torch.dtype) -> float:
    """Operations a second."""
    best = 0.0
    for m, k, n in PRODUCTS:
        a, b = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype)
        for _ in range(4):
            began = cpu_seconds()
            a @ b
            best = max(best, 2 * m * k * n / (cpu_seconds() - began))
    return best


def operations(clips: int) -> float:
    """Of an epoch: input, recurrent, classifier; forward once, backward twice."""
    return 3 * 2 * clips * (STEPS * (WIDTH + HIDDEN) * 4 * HIDDEN + HIDDEN * LABELS)


@dataclass(frozen=True)
class Times:
    """Seconds of each contender a round; bounds too."""

    rounds: dict[str, list[float]]

    def median(self, name: str) -> float:
        return statistics.median(self.rounds[name])

    def ratio(self, name: str, against: str) -> float:
        """Median of the rounds' own ratios: a shared machine's clock goes up and down."""
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
            rate = peak(torch.bfloat16 if precision == "bf16" else torch.float32)
            seconds[f"bound {precision}"].append(operations(clips) / rate)
    return Times(seconds)


def show(times: Times, precisions: list[str]) -> None:
    click.echo(f"\n{'an epoch':<38} {'CPU s':>7}   against the usual one   against its bound")
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
@click.option("--compare", is_flag=True, help="Time a whole --compare on that cache, once.")
def main(clips: int, rounds: int, compare: bool) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()  # as the command does; the others profit from it too
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "generated.h5"
        write_generated(path, clips)
        began = time.process_time()
        sequences = load_sequences(read_cache(path))
        click.echo(f"{clips} clips read and checked in {time.process_time() - began:.1f} s, once a run")
        ours = DeviceClips.load(sequences, torch.device("cpu"))
        precisions = ["fp32", *(["bf16"] if has_bf16(torch.device("cpu")) else [])]
        contenders = {
            USUAL: usual_epoch(Contiguous(path.with_suffix(".contiguous.h5"), clips)),
            "DataLoader over HDF5, the cache": usual_epoch(OfCache(path, clips, sequences.y)),
        } | {f"this project, {precision}": our_epoch(ours, precision) for precision in precisions}
        show(measure(contenders, precisions, clips, rounds), precisions)
        if compare:
            compare_all(path, Path(name) / "run")


if __name__ == "__main__":
    main()
