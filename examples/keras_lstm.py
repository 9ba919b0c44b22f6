"""Train an LSTM in Keras 3 on a feature cache, read only with h5py. Nothing of this project is imported.

    pip install keras torch h5py numpy
    python examples/keras_lstm.py features.h5 [--epochs 20] [--seed 0]

Keras uses PyTorch unless KERAS_BACKEND names another backend. docs/architecture.md describes the layout of the cache.
"""

import argparse
import os

os.environ.setdefault("KERAS_BACKEND", "torch")  # must be set before keras is imported

import h5py
import keras
import numpy as np


def read_cache(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Return padded features x (clips, steps, width), labels y (clips,), groups (clips,) and the label names."""
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


def split_by_group(groups: np.ndarray, *, share: float, seed: int) -> np.ndarray:
    """Return a mask (clips,) of the test clips: whole groups, until they hold `share` of all clips."""
    names, counts = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    before = np.cumsum(counts[order]) - counts[order]
    return np.isin(groups, names[order[before < share * len(groups)]])


def add_changes(x: np.ndarray) -> np.ndarray:
    """Return each step and its change from the step before, (clips, steps, 2 width). Padding stays zero."""
    real = (x != 0).any(axis=-1, keepdims=True)
    change = np.diff(x, axis=1, prepend=x[:, :1]) * real
    return np.concatenate([x, change], axis=-1)


def standardize(x: np.ndarray, *, train: np.ndarray) -> np.ndarray:
    """Standardize x by the real steps of the training clips. Padding stays zero."""
    real = (x != 0).any(axis=-1)
    rows = x[train][real[train]]
    return (x - rows.mean(0)) / (rows.std(0) + 1e-3) * real[..., None]


def main() -> None:
    """Read the cache, split the clips, train the LSTM and print its accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cache")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    keras.utils.set_random_seed(options.seed)
    x, y, groups, labels = read_cache(options.cache)
    test = split_by_group(groups, share=0.3, seed=options.seed)
    print(
        f"{len(x)} clips of up to {x.shape[1]} steps; {test.sum()} of {len(set(groups[test]))} groups are for testing"
    )

    x = standardize(add_changes(x), train=~test)
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
    print(f"accuracy {accuracy:.3f} on {test.sum()} clips of groups not used in training")
    print(f"always predicting the most frequent label: {chance:.3f}")


if __name__ == "__main__":
    main()
