from pathlib import Path

import pytest

from features.config import ExtractSettings
from features.errors import SettingsError
from features.utils.settings import load_settings
from hazard.inference.settings import InferSettings
from hazard.models.settings import TrainSettings
from tests.helpers.paths import ROOT

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_shipped_configs_are_valid_and_say_how_to_run_them(file: Path) -> None:
    for kind, section in ((ExtractSettings, "extract"), (TrainSettings, "train"), (InferSettings, "infer")):
        load_settings(kind, section, file=file)
    assert file.read_text().startswith("# ")
    assert f"--config configs/{file.name}" in file.read_text()


def test_the_classic_pipeline_is_shipped() -> None:
    settings = load_settings(ExtractSettings, "extract", file=ROOT / "configs/hazard_mobilenet_lstm.yaml")
    assert (settings.frames, settings.backbone, settings.reduce) == (12, "mobilenet_v2", "select:512")


def test_flags_win_over_overrides_and_overrides_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("extract:\n  frames: 8\n  pooling: max\n  workers: 3\n")
    settings = load_settings(
        ExtractSettings,
        "extract",
        file=file,
        overrides=["frames=9", "pooling=avg+max"],
        flags={"frames": 10, "fps": None},
    )
    assert (settings.frames, settings.pooling, settings.workers, settings.fps) == (10, "avg+max", 3, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extract:\n  frame: 8\n", "did you mean 'frames'"),
        ("extact:\n  frames: 8\n", "did you mean 'extract'"),
        ("extract:\n  frames: many\n", "'frames'"),
        ("extract:\n  frames: 0\n", "'frames'.*greater than or equal to 1.*got 0"),
        ("extract: [\n", "not YAML"),
        ("- a\n- b\n", "must hold sections"),
        ("extract: 7\n", "must hold key: value"),
    ],
)
def test_wrong_file_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=message) as raised:
        load_settings(ExtractSettings, "extract", file=file)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("override", "message"), [("frames", "KEY=VALUE"), ("frmes=3", "did you mean 'frames'"), ("a=[", "YAML")]
)
def test_wrong_override_is_one_clear_line(override: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(ExtractSettings, "extract", overrides=[override])


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(ExtractSettings, "extract", file=tmp_path / "none.yaml")
