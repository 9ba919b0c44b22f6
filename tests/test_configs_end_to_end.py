"""The commands in the header of each file in configs/ run on small clips in the layout that the header names."""

import re
import shlex
from pathlib import Path

import pytest

from features.backbones.registry import BACKBONES
from features.cache.hdf5 import read_cache
from features.cli.extract import extract_features
from features.cli.manage import features
from features.config import ExtractSettings
from features.sources.label_map import OTHER_CLASSES, read_label_map
from features.utils.settings import load_settings
from hazard.cli.train import train_temporal
from hazard.data.sequences import load_sequences
from hazard.models.model_folder import open_model
from hazard.models.settings import TrainSettings
from tests.conftest import Run
from tests.helpers.data.layouts import CONFIGS, LAYOUTS, make_class_folders

FILES = sorted(CONFIGS.glob("*.yaml"))
TINY = {
    "extract_features.py": ["--weights", "random", "--workers", "1", "--runtime", "torch", "--set", "frames=2"],
    "train_temporal.py": ["--epochs", "1", "--set", "members=1", "--set", "device=cpu"],
}
SNIPPETS = ["--set", "frames=1", "--set", "stride_seconds=0.2"]
"""Settings for 3D networks: snippets of one frame, two per clip."""
COMMANDS = {"extract_features.py": extract_features, "train_temporal.py": train_temporal}


def commands(file: Path) -> list[list[str]]:
    """Return the lines of a header that call Python, split into words, without `python`."""
    return [shlex.split(line) for line in re.findall(r"^# +python (.+)$", file.read_text(), re.MULTILINE)]


def tiny(program: str, file: Path) -> list[str]:
    """Return the arguments that make a command take only seconds."""
    backbone = load_settings(ExtractSettings, "extract", file=file).backbone
    is_3d = program == "extract_features.py" and backbone in BACKBONES and BACKBONES[backbone].snippet is not None
    return TINY[program] + (SNIPPETS if is_3d else [])


def test_headers_name_the_commands_of_all_three_stages() -> None:
    for file in FILES:
        programs = [words[0] for words in commands(file) if words[0] != "-m"]
        assert programs == ["extract_features.py", "train_temporal.py", "infer.py"], file.name
        assert re.search("Score to expect|Expect ", file.read_text()), file.name


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_commands_of_a_header_run(file: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS.get(file.stem, make_class_folders)(tmp_path)
    (tmp_path / "configs").symlink_to(CONFIGS)
    monkeypatch.chdir(tmp_path)
    output = {}
    for program, *words in commands(file):
        if program == "infer.py":
            continue
        if program == "-m":
            ran = run(features, *words[1:])
        else:
            ran = run(COMMANDS[program], *words, *tiny(program, file))
            output[program] = Path(words[words.index("-o") + 1])
        assert ran.code == 0, ran.err
    _agrees(file, output["extract_features.py"], output["train_temporal.py"])


def _agrees(file: Path, cache_file: Path, folder: Path) -> None:
    """Check that cache and model are as the file asks for, and that the model opens and predicts."""
    extract = load_settings(ExtractSettings, "extract", file=file)
    train = load_settings(TrainSettings, "train", file=file)
    cache, predictor = read_cache(cache_file), open_model(folder)
    assert (cache.spec.backbone, predictor.info.name) == (extract.backbone, train.head)
    assert not cache.failures.path.size
    assert train.split is None or "split column" in predictor.info.split
    sequences = load_sequences(cache)
    assert predictor.labels == sequences.labels
    probs = predictor.predict(sequences.x, sequences.mask)
    assert probs.shape == (len(sequences), len(sequences.labels))


def test_the_label_map_makes_ten_classes_that_are_in_both_collections() -> None:
    """No class may reveal the collection that a clip comes from."""
    names = read_label_map(CONFIGS / "label_maps" / "mixed_ten.yaml")
    assert names.pop(OTHER_CLASSES) == ""
    of_ucf101 = {new for old, new in names.items() if old[0].isupper()}
    of_hmdb51 = {new for old, new in names.items() if old[0].islower()}
    assert of_ucf101 == of_hmdb51 and len(of_ucf101) == 10
