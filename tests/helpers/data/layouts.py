"""Small copies of the data sets for configs/, under the names in the headers of these files."""

from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from tests.helpers.data.image_folders import write_images
from tests.helpers.data.videos import write_scene
from tests.helpers.paths import ROOT

CONFIGS = ROOT / "configs"
MIXED = yaml.safe_load((CONFIGS / "label_maps" / "mixed_ten.yaml").read_text())


def make_class_folders(root: Path, name: str = "videos", labels: Iterable[str] = ("normal", "hazardous")) -> None:
    """Write class folders with four videos each."""
    for k, label in enumerate(labels):
        for i in range(4):
            write_scene(root / name / label / f"{i}.mp4", 10 * k + i, count=8)


def make_factory(root: Path) -> None:
    """Write two of the eight classes, which are enough to run the commands."""
    make_class_folders(root, "factory", ("safe_walkway", "safe_walkway_violation"))


def make_ucf101(root: Path, labels: Iterable[str] = ("Archery", "Biking")) -> None:
    """Write videos of two groups for each class, and split lists with the first group in the test split."""
    lists = root / "ucfTrainTestlist"
    lists.mkdir(exist_ok=True)
    train, test, classes = [], [], []
    for k, label in enumerate(labels):
        names = [f"{label}/v_{label}_g{group:02d}_c01.avi" for group in (1, 8)]
        for name in names:
            write_scene(root / "UCF-101" / name, 10 * k + int(names.index(name)), count=8)
        test.append(f"{names[0]}\n")
        train.append(f"{names[1]} {k + 1}\n")
        classes.append(f"{k + 1} {label}\n")
    for file, lines in (("trainlist01.txt", train), ("testlist01.txt", test), ("classInd.txt", classes)):
        (lists / file).write_text("".join(lines))


def make_hmdb51(root: Path, labels: Iterable[str] = ("climb", "golf")) -> None:
    """Write folders of images, and split lists with one test clip and one training clip for each class."""
    lists = root / "testTrainMulti_7030_splits"
    lists.mkdir(exist_ok=True)
    for label in labels:
        names = [f"A_film_{label}_u_nm_np1_fr_goo_{i}" for i in range(2)]
        for name in names:
            write_images(root / "hmdb51" / label / name, 6, name="frame_{:04d}")
        lines = [f"{name}.avi {side} \n" for name, side in zip(names, (2, 1), strict=True)]
        (lists / f"{label}_test_split1.txt").write_text("".join(lines))


def make_mixed(root: Path) -> None:
    """Write all classes of the label map, because each of them must exist, and one class that the map drops."""
    make_ucf101(root, [label for label in MIXED if label[0].isupper()] + ["Typing"])
    make_hmdb51(root, [label for label in MIXED if label[0].islower()])


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "ucf101": make_ucf101,
    "ucf101_resnet18_bilstm_attention": make_ucf101,
    "hmdb51": make_hmdb51,
    "mixed_ten_3dcnn_lstm_gru": make_mixed,
    "workplace_safety": make_factory,
}
"""Stem of a config → function that writes the folders for its commands. All others use class folders in `videos/`."""
