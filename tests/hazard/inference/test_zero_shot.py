"""Zero-shot names of clips: the file of labels, kinds of weights, and frames through the towers of a tiny CLIP."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from features.errors import ArtifactError, RuntimeEnvironmentError, SettingsError
from features.types import Clip
from hazard.inference.zero_shot import (
    EXAMPLE_FILE,
    FRAMES_PER_CLIP,
    ZeroShotNamer,
    open_zero_shot_namer,
    read_zero_shot_labels,
)
from tests.helpers.data.tiny_clip import LABELS, write_tiny_clip
from tests.helpers.data.videos import write_textured
from tests.helpers.paths import ROOT

open_clip = pytest.importorskip("open_clip")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of a tiny CLIP in files of all kinds, and two clips."""
    folder = tmp_path_factory.mktemp("zero-shot")
    state = write_tiny_clip(folder)
    torch.save({"state_dict": {f"module.{key}": tensor for key, tensor in state.items()}}, folder / "tiny.pt")
    save_file({key: tensor for key, tensor in state.items() if "visual" in key}, folder / "half.safetensors")
    bad = next(iter(state))
    save_file(state | {bad: torch.full_like(state[bad], torch.nan)}, folder / "nan.safetensors")
    (folder / "text.pt").write_text("no weights")
    for number in range(2):
        write_textured(folder / f"{number}.mp4", 12, seed=number)
    return folder


def labels_file(folder: Path, **changes: Any) -> Path:
    file = folder / "labels.json"
    file.write_text(json.dumps(LABELS | changes))
    return file


@pytest.fixture(scope="module")
def namer(folder: Path) -> ZeroShotNamer:
    return open_zero_shot_namer(labels_file(folder), "cpu")


def clip(folder: Path, name: str = "0.mp4", **part: float) -> Clip:
    return Clip(name, folder / name, **part)  # type: ignore[arg-type]


def test_names_are_probabilities_the_likeliest_first(namer: ZeroShotNamer, folder: Path) -> None:
    named = namer.name_clip(clip(folder))
    assert {name for name, _ in named} == set(LABELS["labels"])
    assert sum(p for _, p in named) == pytest.approx(1)
    assert [p for _, p in named] == sorted((p for _, p in named), reverse=True)
    assert namer.name_clip(clip(folder)) == named


def test_names_are_those_of_open_clip_itself(namer: ZeroShotNamer, folder: Path) -> None:
    """The expected names are computed with open_clip: mean over phrases and prompts against the mean over frames."""
    network = open_clip.create_model("tiny-zero-shot", pretrained=str(folder / "tiny.safetensors")).eval()
    tokens = open_clip.get_tokenizer("tiny-zero-shot")
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES_PER_CLIP, 32, 32, 3), np.uint8)
    mean, std = (
        torch.tensor(part).view(3, 1, 1) for part in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    images = (torch.from_numpy(frames).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.inference_mode():
        clip_embedding = torch.nn.functional.normalize(network.encode_image(images, normalize=True).mean(0), dim=0)
        logits = []
        for phrases in (["a fire", "thick smoke"], ["an empty room"], ["some people"]):
            text = tokens([prompt.format(phrase) for prompt in LABELS["prompts"] for phrase in phrases])
            mean_text = torch.nn.functional.normalize(network.encode_text(text, normalize=True).mean(0), dim=0)
            logits.append(network.logit_scale.exp() * mean_text @ clip_embedding)
        expected = torch.stack(logits).softmax(0)
    named = dict(namer.name_frames(frames))
    assert [named[name] for name in LABELS["labels"]] == pytest.approx(expected.tolist(), abs=1e-4)


def test_workers_name_the_same_and_nothing_that_cannot_be_read(namer: ZeroShotNamer, folder: Path) -> None:
    (folder / "zero.mp4").touch()
    clips = [clip(folder), clip(folder, "1.mp4"), clip(folder, "zero.mp4"), clip(folder, "0.mp4", end_seconds=0.2)]
    found = dict(namer.name_clips(clips, workers=1))
    assert found == {one: namer.name_clip(one) for one in clips}
    assert found[clips[2]] == () and all(found[one] for one in clips if one is not clips[2])
    assert found[clips[0]] != found[clips[3]]


def test_unlikely_names_are_not_shown(folder: Path) -> None:
    assert open_zero_shot_namer(labels_file(folder, min_probability=1.0), "cpu").name_clip(clip(folder)) == ()


def test_a_checkpoint_of_torch_gives_the_same_names(namer: ZeroShotNamer, folder: Path) -> None:
    other = open_zero_shot_namer(labels_file(folder, pretrained="tiny.pt"), "cpu")
    assert other.name_clip(clip(folder)) == namer.name_clip(clip(folder))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"promts": ["{}"]}, r"unknown key 'promts'; did you mean 'prompts'\?"),
        ({"labels": {"fire": "fire"}}, "labels: give two labels or more"),
        ({"labels": {"fire": [], "calm": "calm"}}, "'fire' needs a name and at least one phrase"),
        ({"labels": ["fire", "calm"]}, "labels: Input should be a valid dict"),
        ({"labels": {"fire": 3, "calm": "calm"}}, "labels.fire: "),
        ({"prompts": []}, "each prompt must contain {} exactly once"),
        ({"prompts": ["a photo"]}, "'a photo' does not"),
        ({"min_probability": 2}, "min_probability: "),
        (
            {"model": "tiny-zero-shots"},
            "unknown backbone 'clip:tiny-zero-shots'; the nearest names: clip:tiny-zero-shot,",
        ),
        (
            {"model": "ViT-B-32", "pretrained": "laion2b_s34b_b79"},
            "did you mean 'laion2b_s34b_b79k'.*the file .* does not exist",
        ),
        ({"pretrained": "absent.pt"}, "unknown pretrained tag 'absent.pt'.*the file .*absent.pt does not exist"),
    ],
    ids=str,
)
def test_a_wrong_file_is_one_clear_line(changes: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        open_zero_shot_namer(labels_file(folder, **changes), "cpu")
    assert "\n" not in str(caught.value) and "labels.json" in str(caught.value)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"labels": {"a": "b", "a": "c"}}', "\xff"])
def test_what_is_not_such_a_file_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "l.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(SettingsError, match=r"zero-shot labels .*l\.json: "):
        read_zero_shot_labels(tmp_path / "l.json")
    with pytest.raises(SettingsError, match="No such file"):
        read_zero_shot_labels(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("text.pt", "not a plain state dict"),
        ("half.safetensors", "do not fit tiny-zero-shot"),
        ("nan.safetensors", "NaN"),
    ],
)
def test_damaged_or_foreign_weights_are_refused(file: str, message: str, folder: Path) -> None:
    with pytest.raises(ArtifactError, match=message) as caught:
        open_zero_shot_namer(labels_file(folder, pretrained=file), "cpu")
    assert "\n" not in str(caught.value)


def test_weights_are_taken_from_the_folder_of_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """$FEATURES_WEIGHTS may hold CLIP's weights; if it does not, the error says how to get them."""
    monkeypatch.setenv("FEATURES_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("features.backbones.weights._find_cached", lambda url: None)
    monkeypatch.setattr("features.backbones.weights._download_from_hugging_face", _no_network)
    file = labels_file(folder, model="ViT-B-32", pretrained="laion2b_s34b_b79k")
    with pytest.raises(
        RuntimeEnvironmentError, match=r"the download failed \(no network\)\. Get the file .*labels\.json"
    ):
        open_zero_shot_namer(file, "cpu")
    (tmp_path / "clip-ViT-B-32-laion2b_s34b_b79k.safetensors").write_bytes((folder / "tiny.safetensors").read_bytes())
    with pytest.raises(ArtifactError, match="do not fit ViT-B-32"):  # the file is found, but it holds another model
        open_zero_shot_namer(file, "cpu")


def _no_network(*_: str) -> Path:
    raise OSError("no network")


def test_the_example_that_is_shipped_is_right() -> None:
    labels = read_zero_shot_labels(ROOT / EXAMPLE_FILE)
    assert labels.pretrained in open_clip.list_pretrained_tags_by_model(labels.model)
    assert any("ordinary" in name for name in labels.labels)  # there must be a name for harmless clips too
