"""Small random sequences with a planted motion signal, and a cache that holds them."""

from types import SimpleNamespace
from typing import cast

import numpy as np

from features.cache import Cache
from hazard.types import Sequences

WIDTH = 12


def moving_sequences(
    *, clips: int = 48, labels: tuple[str, ...] = ("fight", "noFight"), groups: int = 12, steps: int = 8, seed: int = 0
) -> Sequences:
    """Label k shakes in channels of its own; nothing but the movement tells the labels apart. Lengths differ."""
    rng = np.random.default_rng(seed)
    y = np.arange(clips) % len(labels)
    x = rng.normal(size=(clips, 1, WIDTH)) + 0.3 * rng.normal(size=(clips, steps, WIDTH))
    for k in range(len(labels)):
        x[y == k, :, k * 2 : k * 2 + 2] += 1.5 * rng.normal(size=(int((y == k).sum()), steps, 2))
    lengths = rng.integers(3, steps + 1, size=clips)
    lengths[0] = steps
    mask = np.arange(steps) < lengths[:, None]
    paths = np.array([f"{labels[k]}/{number:03d}.mp4" for number, k in enumerate(y)])
    return Sequences(
        x=np.where(mask[..., None], x, 0).astype(np.float32),
        mask=mask,
        y=y.astype(np.int64),
        groups=np.array([f"video{number // len(labels) % groups}" for number in range(clips)]),
        paths=paths,
        splits=np.full(clips, "", dtype="<U5"),
        labels=labels,
    )


def as_cache(sequences: Sequences, **columns: object) -> Cache:
    """The cache that `sequences` could have come from; `columns` replace columns of its clip table."""
    lengths = sequences.mask.sum(axis=1)
    labels = np.array([*sequences.labels, ""])[sequences.y]
    table = {
        "path": sequences.paths,
        "label": labels,
        "group": sequences.groups,
        "split": sequences.splits,
        "view": np.full(len(sequences), "none"),
        "start": np.concatenate([[0], np.cumsum(lengths)[:-1]]),
        "length": lengths,
        "duration": np.full(len(sequences), 2.0),
        "status": np.full(len(sequences), "ok"),
    } | columns
    spec = {"backbone": "toy"}
    return cast(
        Cache,
        SimpleNamespace(
            clips=SimpleNamespace(**table),
            features=sequences.x[sequences.mask].astype(np.float16),
            times=np.zeros(int(lengths.sum())),
            spec=SimpleNamespace(model_dump=lambda mode: spec),
            fingerprint="0123456789abcdef",
            reduction=None,
            weights_file="weights.pth",
            content_digest="d" * 64,
        ),
    )
