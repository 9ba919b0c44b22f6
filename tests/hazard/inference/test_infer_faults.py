"""Faulty files, through the command: a clip that stage one rejects is reported as failed and never gets a label."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from features.cache.hdf5 import read_header
from features.cli.extract import extract_features
from hazard.cli.infer import infer
from hazard.cli.train import train_temporal
from hazard.synthetic.clips import draw_dataset
from tests.conftest import Run
from tests.helpers.data.planted import PLAYLISTS, MisbehavingExtractJob, detect_opening, write_faulty_files
from tests.helpers.data.videos import write_enormous, write_numbered

TORCH = ("--runtime", "torch", "--workers", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    draw_dataset(folder, classes={"normal": ["walk"], "hazardous": ["fight"]}, clips_per_class=4, scenes=2)
    given = [folder / "manifest.csv", "-o", folder / "c.h5", "--weights", "random", "--frames", "3", *TORCH]
    assert extract_features.main([str(a) for a in given], standalone_mode=False) == 0
    given = [folder / "c.h5", "-o", folder / "model", "--baseline", "ridge"]
    assert train_temporal.main([str(a) for a in given], standalone_mode=False) == 0
    return folder / "model"


def table(report: Path) -> dict[str, dict[str, str]]:
    with open(report / "predictions.csv", newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def unescaped(path: str) -> str:
    return path.removeprefix("'") if path[:2] in ("'-", "'=", "'+", "'@") else path


def test_rows_1_to_17_and_36_are_reported_as_the_ledger_says(model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "v").mkdir()
    write_faulty_files(tmp_path / "v")
    write_enormous(tmp_path / "v" / "13.avi")
    (tmp_path / "v" / "loop").symlink_to(tmp_path / "v")  # row 37
    common = (*TORCH, "--set", "deadline_seconds=20")
    extracted = run(extract_features, tmp_path / "v", "-o", tmp_path / "c.h5", "--weights", "random", *common)
    ran = run(infer, tmp_path / "v", "--model", model, "-o", tmp_path / "r", *common)
    assert extracted.code == ran.code == 3
    assert "Traceback" not in ran.err
    ledger = read_header(tmp_path / "c.h5")
    columns = (getattr(ledger.failures, column).tolist() for column in ("path", "stage", "reason"))
    failures = {path: f"{stage}: {reason}" for path, stage, reason in zip(*columns, strict=True)}
    rows = {unescaped(path): row for path, row in table(tmp_path / "r").items()}
    failed = {path: row for path, row in rows.items() if row["status"] == "failed"}
    assert {path: row["reason"] for path, row in failed.items()} == failures
    assert len(failures) >= 17
    assert all(row["label"] == row["probability"] == row["normal"] == row["hazardous"] == "" for row in failed.values())
    partial = dict(zip(ledger.clips.path.tolist(), ledger.clips.status.tolist(), strict=True))
    for path, row in rows.items():
        if row["status"] != "failed":
            if path != "07 few.mp4":  # damaged in the middle: whether this is noticed depends on the sampled frames
                assert row["status"] == partial[path]
            assert (row["reason"] == "") == (row["status"] == "ok"), "partial clips say so"
            assert row["label"] in ("normal", "hazardous")
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert {clip["path"] for clip in report["failures"]} == failures.keys()


def test_rows_14_and_15_hang_and_crash(
    model: Path, numbered: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b hang", "c crash", "d"):
        shutil.copy(numbered / "calm" / "0.mp4", tmp_path / f"{name}.mp4")
    monkeypatch.setattr("features.extraction.local_engine.ExtractJob", MisbehavingExtractJob)
    ran = run(infer, tmp_path, "--model", model, "-o", tmp_path / "r", *TORCH, "--set", "deadline_seconds=4")
    assert ran.code == 3
    found = {path: (row["status"], row["reason"]) for path, row in table(tmp_path / "r").items()}
    assert found == {
        "a.mp4": ("ok", ""),
        "b hang.mp4": ("failed", "decode: timeout: nothing decoded for 4 s"),
        "c crash.mp4": ("failed", "decode: the decoder crashed (SIGSEGV)"),
        "d.mp4": ("ok", ""),
    }


def test_row_17_a_playlist_never_opens_what_it_names(model: Path, tmp_path: Path, run: Run) -> None:
    canary = write_numbered(tmp_path / "canary.mp4", 30).rename(tmp_path / "canary.bin")
    for kind, text in PLAYLISTS.items():
        (tmp_path / f"{kind}.mp4").write_text(text)
    with detect_opening(canary) as was_opened:
        assert run(infer, tmp_path, "--model", model, "-o", tmp_path / "r", *TORCH, "--annotate").code == 3
        assert not was_opened()
    rows = table(tmp_path / "r")
    assert len(rows) == len(PLAYLISTS)
    assert all(row["reason"].startswith("open: not a video") for row in rows.values())


def test_row_41_a_private_address_is_refused(model: Path, tmp_path: Path, run: Run) -> None:
    addresses = ["http://2130706433/a.mp4", "http://[::ffff:127.0.0.1]/a.mp4", "http://[64:ff9b::7f00:1]/a.mp4"]
    ran = run(infer, *addresses, "--model", model, "-o", tmp_path / "r", *TORCH)
    assert ran.code == 3
    rows = table(tmp_path / "r")
    assert {row["status"] for row in rows.values()} == {"failed"}
    assert len(rows) == 3


@pytest.mark.long
def test_row_38_many_files_are_reported_in_bounded_memory(model: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "v").mkdir()
    for i in range(20_000):
        (tmp_path / "v" / f"{i:06d}.mp4").touch()
    ran = run(infer, tmp_path / "v", "--model", model, "-o", tmp_path / "r", *TORCH)
    assert ran.code == 3
    assert "0 clips analysed, 20000 failed" in ran.out
    assert len(ran.out.splitlines()) < 40
    assert len(table(tmp_path / "r")) == 20_000
