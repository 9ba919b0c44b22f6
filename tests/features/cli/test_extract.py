"""The command `extract-features` as a user runs it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from features.cache.hdf5 import read_cache, read_header
from features.cache.parts import parts_folder
from features.cache.reduction import fit
from features.cli.extract import extract_features
from tests.conftest import Run
from tests.helpers.data.videos import truncate, write_numbered
from tests.helpers.paths import ROOT


@pytest.fixture
def clips(numbered: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(numbered, tmp_path / "clips"))


def test_extracts_once_then_only_what_is_new_or_changed(clips: Path, tmp_path: Path, extract: Run) -> None:
    output = tmp_path / "c.h5"
    first = extract(clips, "-o", output)
    assert (first.code, "6 clips: 6 to extract" in first.out) == (0, True)
    cache = read_cache(output)
    assert cache.features.shape == (6 * 12, 512)
    assert cache.clips.label.tolist() == ["calm"] * 3 + ["wild"] * 3
    assert cache.clips.path.tolist() == [f"{c}/{i}.mp4" for c in ("calm", "wild") for i in range(3)]
    assert cache.reduction_fitted_on == "all"
    assert not parts_folder(output).exists()

    again = extract(clips, "-o", output)
    assert (again.code, "0 to extract, 6 in the cache" in again.out) == (0, True)
    assert read_header(output).created == cache.created

    write_numbered(clips / "wild" / "9.mp4", 30)
    write_numbered(clips / "calm" / "0.mp4", 40)
    os.utime(clips / "calm" / "1.mp4")
    more = extract(clips, "-o", output)
    assert "2 extracted, 5 kept, 0 failed" in more.out
    new = read_cache(output)
    assert len(new.clips) == 7
    assert new.reduction is not None
    assert cache.reduction is not None
    assert new.reduction.digest == cache.reduction.digest
    assert new.clips.digest[0] != cache.clips.digest[0]
    assert (new.features[12:36] == cache.features[12:36]).all()
    assert "0 to extract, 7 in the cache" in extract(clips, "-o", output).out


def test_bad_clips_are_in_the_ledger_and_the_rest_goes_on(clips: Path, tmp_path: Path, extract: Run) -> None:
    (clips / "calm" / "zero.mp4").touch()
    (clips / "calm" / "text.mp4").write_text("no video")
    shutil.copy(clips / "wild" / "2.mp4", clips / "wild" / "cut.mp4")
    truncate(clips / "wild" / "cut.mp4", 0.4)
    output = tmp_path / "c.h5"
    ran = extract(clips, "-o", output)
    assert ran.code == 3
    assert "6 extracted, 0 kept, 3 failed" in ran.out
    assert "open: empty file" in ran.out
    failures = read_header(output).failures
    assert failures.path.tolist() == ["calm/text.mp4", "calm/zero.mp4", "wild/cut.mp4"]
    assert failures.stage.tolist() == ["open"] * 3

    again = extract(clips, "-o", output)
    assert (again.code, "3 clips failed before" in again.out) == (3, True)
    write_numbered(clips / "calm" / "zero.mp4", 20)
    healed = extract(clips, "-o", output)
    assert "1 extracted, 6 kept" in healed.out
    assert read_header(output).failures.path.tolist() == ["calm/text.mp4", "wild/cut.mp4"]
    assert "2 failed in" in extract(clips, "-o", output, "--retry-failed").out


def test_a_clip_that_breaks_later_loses_its_stale_features(clips: Path, tmp_path: Path, extract: Run) -> None:
    output = tmp_path / "c.h5"
    extract(clips, "-o", output)
    (clips / "calm" / "0.mp4").write_text("no video any more")
    assert extract(clips, "-o", output).code == 3
    header = read_header(output)
    assert "calm/0.mp4" not in header.clips.path
    assert header.failures.path.tolist() == ["calm/0.mp4"]


def test_nothing_but_bad_clips(tmp_path: Path, extract: Run) -> None:
    (tmp_path / "a.mp4").touch()
    ran = extract(tmp_path, "-o", tmp_path / "c.h5")
    assert (ran.code, "no clip could be extracted" in ran.out) == (3, True)
    assert not (tmp_path / "c.h5").exists()


def test_a_reduction_is_fitted_on_training_rows_and_kept_in_the_cache(
    numbered: Path, tmp_path: Path, extract: Run
) -> None:
    manifest = tmp_path / "m.csv"
    rows = [f"{numbered}/calm/0.mp4,x,train", f"{numbered}/calm/1.mp4,y,train", f"{numbered}/wild/0.mp4,y,test"]
    manifest.write_text("path,label,split\n" + "\n".join(rows))
    assert extract(manifest, "-o", tmp_path / "raw.h5", "--reduce", "none").code == 0
    raw = read_cache(tmp_path / "raw.h5")
    training = [
        raw.features[start : start + length]
        for start, length, split in zip(raw.clips.start, raw.clips.length, raw.clips.split, strict=True)
        if split == "train"
    ]
    for text in ("pca-scaled:8", "pca-whitened:8"):
        output = tmp_path / f"{text.partition(':')[0]}.h5"
        assert extract(manifest, "-o", output, "--reduce", text).code == 0
        small, expected = read_cache(output), fit(text, training, width=1280)
        assert expected is not None and small.reduction is not None
        assert (small.reduction.digest, small.reduction_fitted_on) == (expected.digest, "train")
        assert (small.features == expected.apply(raw.features)).all()


def test_labels_groups_and_splits_follow_the_manifest_without_extraction(
    numbered: Path, tmp_path: Path, extract: Run
) -> None:
    manifest, output = numbered / "m.csv", tmp_path / "c.h5"
    rows = [("calm/0.mp4", "x", "g1", "train"), ("wild/0.mp4", "y", "g2", "test")]
    manifest.write_text("path,label,group,split\n" + "\n".join(",".join(row) for row in rows))
    extract(manifest, "-o", output, "--reduce", "pca:8")
    assert read_header(output).reduction_fitted_on == "train"
    manifest.write_text("path,label,group,split\ncalm/0.mp4,z,g1,train\nwild/0.mp4,y,g3,val\n")
    ran = extract(manifest, "-o", output, "--reduce", "pca:8")
    assert "0 to extract" in ran.out
    clips = read_cache(output).clips
    assert (clips.label.tolist(), clips.group.tolist(), clips.split.tolist()) == (
        ["z", "y"],
        ["g1", "g3"],
        ["train", "val"],
    )
    manifest.unlink()


def test_other_settings_are_refused_and_named(clips: Path, tmp_path: Path, extract: Run) -> None:
    output = tmp_path / "c.h5"
    extract(clips, "-o", output)
    before = output.read_bytes()
    ran = extract(clips, "-o", output, "--frames", 8, "--pooling", "max")
    assert ran.code == 4
    assert "sampling.frames: 12, not 8; pooling: avg, not max" in ran.err
    assert output.read_bytes() == before


def test_larger_pictures_show_the_same_part_of_the_frame(numbered: Path, tmp_path: Path, extract: Run) -> None:
    output = tmp_path / "c.h5"
    assert extract(numbered, "-o", output, "--size", 320, "--frames", 2).code == 0
    spec = read_header(output).spec.preprocessing
    assert (spec.size, spec.resize) == (320, 366)  # 224 of 256, as the weights were trained
    refused = extract(numbered, "-o", output, "--backbone", "clip:ViT-S-32-alt", "--reduce", "none", "--size", 320)
    assert (refused.code, "takes only frames of 224 pixels" in refused.err) == (2, True)


def test_fps_sampling_makes_tracks_of_different_lengths(clips: Path, tmp_path: Path, extract: Run) -> None:
    output = tmp_path / "c.h5"
    assert extract(clips, "-o", output, "--fps", 10, "--reduce", "none", "--pooling", "avg+max").code == 0
    cache = read_cache(output)
    assert cache.features.shape[1] == 2560
    assert cache.clips.length[:3].tolist() == [8, 10, 12]
    assert cache.reduction is None


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--backbone", "mobilnet_v2"], 2, "unknown backbone 'mobilnet_v2'; did you mean 'mobilenet_v2'"),
        (["--reduce", "select:9999"], 2, "from 1 to 1280"),
        (["--weights", "absent.pth"], 2, "absent.pth: no weights of mobilenet_v2 found"),
        (["--set", "frame=3"], 2, "did you mean 'frames'"),
        (["--frames", "0"], 2, "0 is not in the range"),
        (["--device", "cuda:9"], 2, "'cuda:9' does not exist"),
        (["--config", "absent.yaml"], 2, "absent.yaml cannot be read"),
    ],
)
def test_bad_input_is_one_line_before_any_work(
    numbered: Path, tmp_path: Path, run: Run, arguments: list[str], code: int, message: str
) -> None:
    ran = run(
        extract_features,
        numbered,
        "-o",
        tmp_path / "c.h5",
        *([] if "--weights" in arguments else ["--weights", "random"]),
        *arguments,
    )
    assert ran.code == code
    assert message in ran.err
    assert "Traceback" not in ran.err
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written_stops_before_the_model(numbered: Path, tmp_path: Path, extract: Run) -> None:
    (tmp_path / "file").touch()
    ran = extract(numbered, "-o", tmp_path / "file" / "c.h5")
    assert ran.code == 5
    assert "cannot write" in ran.err


def test_dry_run_and_limit(numbered: Path, tmp_path: Path, extract: Run) -> None:
    ran = extract(numbered, "-o", tmp_path / "c.h5", "--dry-run", "--limit", 4)
    assert (ran.code, "4 clips: 4 to extract" in ran.out) == (0, True)
    assert not (tmp_path / "c.h5").exists()


def test_damaged_part_is_named_and_extracted_again(clips: Path, tmp_path: Path, extract: Run) -> None:
    output = tmp_path / "c.h5"
    extract(clips, "-o", output)
    expected = read_header(output).content_digest
    output.unlink()
    folder = parts_folder(output)
    folder.mkdir()
    part = folder / f"part-{'0' * 64}.h5"
    part.write_bytes(b"damaged")
    (folder / f".part.h5.tmp-{os.uname().nodename}-999999").touch()
    ran = extract(clips, "-o", output)
    assert f"damaged part {part.name}" in ran.out
    assert read_header(output).content_digest == expected
    assert not folder.exists()


def test_stopped_half_way_it_commits_and_goes_on_later(tmp_path: Path, extract: Run) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    write_numbered(clips / "00.mp4", 200)
    for i in range(1, 24):
        shutil.copy(clips / "00.mp4", clips / f"{i:02d}.mp4")
    script = ROOT / "extract_features.py"
    command = [sys.executable, script, clips, "-o", tmp_path / "c.h5", "--weights", "random", "--runtime", "torch"]
    process = subprocess.Popen(
        [*command, "--set", "part_clips=2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob("c.h5.parts/part-*.h5")):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "run the same command again to continue" in out
    assert not (tmp_path / "c.h5").exists()
    done = len(list(tmp_path.glob("c.h5.parts/part-*.h5")))
    assert 1 <= done < 12
    rest = extract(clips, "-o", tmp_path / "c.h5")
    assert rest.code == 0
    assert "24 to extract" not in rest.out
    assert len(read_header(tmp_path / "c.h5").clips) == 24
    again = extract(clips, "-o", tmp_path / "d.h5")
    assert again.code == 0
    assert read_header(tmp_path / "c.h5").content_digest == read_header(tmp_path / "d.h5").content_digest


def test_the_readme_shows_how_h5py_alone_reads_a_cache(numbered: Path, tmp_path: Path, extract: Run) -> None:
    extract(numbered, "-o", tmp_path / "features.h5")
    with h5py.File(tmp_path / "features.h5") as file:
        paths, labels = file["clips/path"].asstr()[:], file["clips/label"].asstr()[:]
        starts, lengths = file["clips/start"][:], file["clips/length"][:]
        first = file["features"][starts[0] : starts[0] + lengths[0]]
        times = file["times"][starts[0] : starts[0] + lengths[0]]
    assert (paths[0], labels[0], first.shape, first.dtype) == ("calm/0.mp4", "calm", (12, 512), np.float16)
    assert (np.diff(times) > 0).all()
