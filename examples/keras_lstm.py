"""Train an LSTM in Keras 3 on a feature cache that is read with h5py alone: nothing of this project is imported.

    pip install keras torch h5py numpy
    python examples/keras_lstm.py features.h5 [--epochs 20] [--seed 0]

Keras runs on PyTorch unless KERAS_BACKEND says otherwise. The cache's layout is in docs/architecture.md.
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # read when keras is imported, hence before

import h5py
import keras
import numpy as np


def read_cache(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Padded features x (clips, steps, width), labels y (clips,), groups (clips,) and the labels' names."""
    with h5py.File(path) as file:
        columns = {name: file["clips"][name][:] for name in ("path", "label", "group", "view", "start", "length")}
        features = file["features"][:]  # every frame of every clip, back to back
    label, view = columns["label"].astype(str), columns["view"].astype(str)
    clips = np.flatnonzero((label != "") & (view == "none") & (columns["length"] > 0))
    names, y = np.unique(label[clips], return_inverse=True)
    x = np.zeros((len(clips), columns["length"][clips].max(), features.shape[1]), np.float32)
    for row, clip in enumerate(clips):
        start, length = columns["start"][clip], columns["length"][clip]
        x[row, :length] = features[start : start + length]
    group = np.where(columns["group"] == b"", columns["path"], columns["group"])[clips]
    return x, y, group, names.tolist()


def divide(groups: np.ndarray, *, share: float, seed: int) -> np.ndarray:
    """True for the clips to test on: whole groups, until they hold `share` of all clips."""
    names, counts = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    return np.isin(groups, names[order[before < share * len(groups)]])


def with_changes(x: np.ndarray) -> np.ndarray:
    """Each step beside its change from the step before, (clips, steps, 2 width); zeros after a clip's end."""
    real = (x != 0).any(axis=-1, keepdims=True)
    change = np.diff(x, axis=1, prepend=x[:, :1]) * real
    return np.concatenate([x, change], axis=-1)


def scaled(x: np.ndarray, *, train: np.ndarray) -> np.ndarray:
    """Less the mean, over the deviation of the real steps of the training clips; zeros after a clip's end."""
    real = (x != 0).any(axis=-1)
    rows = x[train][real[train]]
    return (x - rows.mean(0)) / (rows.std(0) + 1e-3) * real[..., None]


def main() -> None:
    """Reads, divides, trains, and says how often it is right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    x, y, groups, labels = read_cache(options.cache)
    test = divide(groups, share=0.3, seed=options.seed)
    print(
        f"{len(x)} clips of up to {x.shape[1]} steps; {test.sum()} of {len(set(groups[test]))} groups are for testing"
    )

    x = scaled(with_changes(x), train=~test)
    model = keras.Sequential(
        [
            keras.layers.Input(x.shape[1:]),
            keras.layers.Masking(),  # the zeros after a clip's end
            keras.layers.Dropout(0.5),
            keras.layers.LSTM(64),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(len(labels), activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.AdamW(1e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x[~test], y[~test], epochs=options.epochs, batch_size=32, verbose=2)
    _, accuracy = model.evaluate(x[test], y[test], verbose=0)
    chance = np.bincount(y[test]).max() / test.sum()
    print(
        f"accuracy {accuracy:.3f} on {test.sum()} clips of groups that were not seen; the commonest label: {chance:.3f}"
    )


if __name__ == "__main__":
    main()
