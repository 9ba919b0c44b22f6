"""Small random sequences whose labels differ only in motion, and a cache that holds them."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np

from features.backbones.weights import weights_digest
from features.cache.hdf5 import Cache
from features.spec import FeatureSpec, Preprocessing, Sampling
from hazard.types import Sequences, SequenceView

WIDTH = 12


def make_moving_sequences(
    *, clips: int = 48, labels: tuple[str, ...] = ("fight", "noFight"), groups: int = 12, steps: int = 8, seed: int = 0
) -> Sequences:
    """Return sequences of different lengths whose labels differ only in motion, each in its own channels."""
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


def add_noisy_views(sequences: Sequences, *names: str, seed: int = 0) -> Sequences:
    """Return the same clips with these views added: the plain tracks with a little noise."""
    rng = np.random.default_rng(seed)
    noisy = [sequences.x + 0.1 * rng.normal(size=sequences.x.shape) for _ in names]
    views = (np.where(sequences.mask[..., None], x, 0).astype(np.float32) for x in noisy)
    return replace(
        sequences, views=tuple(SequenceView(name, x, sequences.mask) for name, x in zip(names, views, strict=True))
    )


def make_cache(sequences: Sequences, **columns: object) -> Cache:
    """Return a cache from which `sequences` could have been loaded. `columns` replace columns of its clip table."""
    shown = ((sequences.x, sequences.mask), *((view.x, view.mask) for view in sequences.views))
    lengths = np.concatenate([mask.sum(axis=1) for _, mask in shown])
    labels = np.array([*sequences.labels, ""])[sequences.y]
    table = {
        "path": np.tile(sequences.paths, len(shown)),
        "label": np.tile(labels, len(shown)),
        "group": np.tile(sequences.groups, len(shown)),
        "split": np.tile(sequences.splits, len(shown)),
        "view": np.repeat(sequences.view_names, len(sequences)),
        "start": np.concatenate([[0], np.cumsum(lengths)[:-1]]),
        "length": lengths,
        "duration": np.full(len(lengths), 2.0),
        "status": np.full(len(lengths), "ok"),
    } | columns
    spec = FeatureSpec(
        sampling=Sampling(frames=sequences.x.shape[1]),
        preprocessing=Preprocessing(),
        backbone="toy",
        weights="random",
        weights_digest="d" * 64,
        pooling="avg",
        views=sequences.view_names,
    )
    return cast(
        Cache,
        SimpleNamespace(
            clips=SimpleNamespace(**table),
            features=np.concatenate([x[mask] for x, mask in shown]).astype(np.float16),
            times=np.zeros(int(lengths.sum())),
            spec=spec,
            fingerprint=spec.fingerprint,
            reduction=None,
            weights_file="weights.pth",
            content_digest="d" * 64,
        ),
    )


def make_frames_spec() -> FeatureSpec:
    """Return a spec that can extract features from videos: small frames, MobileNetV2, random weights."""
    return FeatureSpec(
        sampling=Sampling(frames=4),
        preprocessing=Preprocessing(size=64, resize=64),
        backbone="mobilenet_v2",
        weights="random",
        weights_digest=weights_digest("mobilenet_v2", None),
        pooling="avg",
    )
