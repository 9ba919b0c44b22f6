"""Parts of longer videos, named in a manifest: they give the right frames and are separate clips."""

import json
import os
from pathlib import Path

import av.logging
import pytest

from features.cache.hdf5 import read_header
from features.cli.extract import extract_features
from features.cli.manage import features
from features.errors import ClipError
from features.sources.discover import find_clips
from features.spec import Sampling
from features.types import Clip, FrameBatch
from features.video.decoder import read_frames
from features.video.sampling import make_row_sampler
from tests.conftest import Run
from tests.helpers.data.image_folders import write_images
from tests.helpers.data.videos import read_number, truncate, write_numbered


@pytest.fixture(autouse=True)
def _quiet() -> None:
    av.logging.set_level(None)


def manifest(folder: Path, text: str) -> Path:
    file = folder / "m.csv"
    file.write_text(text)
    return file


def test_rows_of_one_video_are_clips_of_their_own(tmp_path: Path) -> None:
    text = "path,label,start,end\na.mp4,x,0,2.50\na.mp4,y,2.5,\na.mp4,z,,\nb.mp4,x,1e1,12\nc.mp4,z,0.0,\n"
    video = tmp_path / "a.mp4"
    assert find_clips([manifest(tmp_path, text)]) == [
        Clip("a.mp4", video, "z", "a.mp4"),
        Clip("a.mp4#t=0,2.5", video, "x", "a.mp4", end_seconds=2.5),
        Clip("a.mp4#t=2.5", video, "y", "a.mp4", start_seconds=2.5),
        Clip("b.mp4#t=10,12", tmp_path / "b.mp4", "x", "b.mp4", start_seconds=10, end_seconds=12),
        Clip("c.mp4", tmp_path / "c.mp4", "z"),
    ]
    given = manifest(tmp_path, "path,group,start,end\na.mp4,g,0,2\na.mp4,,2,4\n")
    assert [clip.group for clip in find_clips([given])] == ["g", "a.mp4"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("twelve,", "row 3, column 'start': 'twelve' is not a number; expected seconds such as 12 or 15.5"),
        ("0:12,", "row 3, column 'start': '0:12' is not a number"),
        ("1_0,", "row 3, column 'start': '1_0' is not a number"),
        ("nan,", "row 3, column 'start': 'nan' is not a number"),
        (
            ",inf",
            "row 3, column 'end': 'inf' is not a number; expected seconds such as 12 or 15.5, or an empty cell for the",
        ),
        ("-1,", "row 3, column 'start': -1 is negative"),
        ("5,4.5", "row 3, column 'end': 4.5 is not after the start, 5"),
        ("5,5.0000001", "row 3, column 'end': 5 is not after the start, 5"),
        (",0", "row 3, column 'end': 0 is not after the start, 0"),
        ("0,9.0", "row 3, column 'path': 'a.mp4#t=0,9' is already in row 2"),
    ],
)
def test_a_wrong_part_names_row_and_column(tmp_path: Path, run: Run, row: str, said: str) -> None:
    file = manifest(tmp_path, f"path,start,end\na.mp4,0,9\na.mp4,{row}\n")
    ran = run(extract_features, file, "-o", tmp_path / "c.h5")
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert said in ran.err


def read(path: Path, start: float, end: float, *, quick: bool = True, frames: int = 4) -> FrameBatch:
    pick = make_row_sampler(Sampling(frames=frames))
    return read_frames(path, pick, lambda image: image, span=(start, end), try_fast=quick)


def numbers(batch: FrameBatch) -> list[int]:
    return [read_number(image) for image in batch.data]


KINDS: dict[str, dict] = {
    "long gop.mp4": {"gop": 500},
    "seekable.mp4": {},
    "seekable.mkv": {},
    "b frames.avi": {},
    "stream.ts": {},
    "bare.h264": {"b_frames": 0, "container": "h264"},
}


@pytest.mark.parametrize("quick", [True, False], ids=["seek", "sure"])
@pytest.mark.parametrize("held", [True, False], ids=["held", "streamed"])
@pytest.mark.parametrize("name", KINDS)
def test_only_the_frames_of_the_part_come(
    tmp_path: Path, name: str, held: bool, quick: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_numbered(tmp_path / name, 150, **KINDS[name])
    if not held:
        monkeypatch.setattr("features.video.decoder.MAX_CACHED_PACKET_BYTES", 0)
    batch = read(path, 2.0, 3.6, quick=quick)
    assert numbers(batch) == [55, 65, 75, 85]
    assert batch.times == pytest.approx([0.2, 0.6, 1.0, 1.4], abs=0.021)
    assert (batch.duration, batch.decoded_share) == (pytest.approx(1.6), 1.0)
    assert numbers(read(path, 4.8, float("inf"), quick=quick)) == pytest.approx([123, 131, 138, 146], abs=1)


@pytest.mark.parametrize("quick", [True, False], ids=["seek", "sure"])
@pytest.mark.parametrize("name", KINDS)
def test_a_part_beyond_the_end_is_partial_or_a_failure(tmp_path: Path, name: str, quick: bool) -> None:
    path = write_numbered(tmp_path / name, 100, **KINDS[name])
    batch = read(path, 1.0, 5.0, quick=quick)
    assert batch.decoded_share == pytest.approx(0.75, abs=0.02)
    assert batch.duration == pytest.approx(3.0, abs=0.05)
    assert max(numbers(batch)) < 100
    assert read(path, 1.0, 4.01, quick=quick).decoded_share == 1.0  # a rounding error is not damage
    with pytest.raises(ClipError, match=r"only 2\d% of the video could be decoded"):
        read(path, 3.0, 7.0, quick=quick)
    with pytest.raises(ClipError, match=r"the clip starts at 9 s, but the video lasts only 4\.0"):
        read(path, 9.0, 10.0, quick=quick)


def test_a_part_before_the_damage_is_whole(tmp_path: Path) -> None:
    path = truncate(write_numbered(tmp_path / "a.mkv", 100), 0.75)
    whole = read(path, 0.0, float("inf")).decoded_share
    assert whole < 0.8
    assert read(path, 0.0, 2.0).decoded_share == 1.0
    assert read(path, 1.0, float("inf")).decoded_share == pytest.approx((4 * whole - 1) / 3, abs=0.02)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of parts of a video, of a folder of images and parts of it, and of folders with faults."""
    folder = tmp_path_factory.mktemp("parts")
    write_numbered(folder / "long.mp4", 100)
    for name in ("walk/good", "walk/gap", "fall/torn"):
        write_images(folder / "images" / name, 12, suffix="png")
    (folder / "images/walk/gap/frame_5.png").unlink()
    (folder / "images/fall/torn/frame_6.png").write_text("no image")
    rows = ["long.mp4,x,0,2", "long.mp4,y,3,5", "long.mp4,y,9,", "images/walk/good,z,0.2,"]
    manifest(folder, "\n".join(["path,label,start,end", *rows, ""]))
    arguments = [folder / "m.csv", folder / "images", "-o", folder / "c.h5", "--frames", 6, "--weights", "random"]
    arguments += ["--workers", 1, "--runtime", "torch"]
    assert extract_features.main([str(a) for a in arguments], standalone_mode=False) == 3
    return folder


def test_parts_and_image_folders_are_extracted(made: Path) -> None:
    header = read_header(made / "c.h5")
    table, ledger = header.clips, header.failures
    found = dict(
        zip(table.path.tolist(), zip(table.status, table.decoded_share, table.duration, strict=True), strict=True)
    )
    assert found == {
        "images/walk/good#t=0.2": ("ok", 1.0, pytest.approx(0.28)),
        "long.mp4#t=0,2": ("ok", 1.0, 2.0),
        "long.mp4#t=3,5": ("partial", 0.5, 1.0),
        "walk/good": ("ok", 1.0, 0.48),
    }
    assert dict(zip(ledger.path.tolist(), ledger.reason.tolist(), strict=True)) == {
        "fall/torn": "'frame_6.png' is not a JPEG or PNG image, or is damaged",
        "long.mp4#t=9": "the clip starts at 9 s, but the video lasts only 4.0 s",
        "walk/gap": "gap in the images: 'frame_6.png' follows 'frame_4.png', the usual step is 1",
    }


def test_again_verify_and_change(made: Path, run: Run, extract: Run) -> None:
    sources = [made / "m.csv", made / "images"]
    again = extract(*sources, "-o", made / "c.h5", "--frames", 6)
    assert "7 clips: 0 to extract, 4 in the cache already" in again.out
    assert "3 clips failed before" in again.out

    verdict = run(features, "verify", made / "c.h5", *sources, "--json")
    found = json.loads(verdict.out)
    assert (verdict.code, len(found["failed"])) == (3, 3)
    assert not any(found[kind] for kind in ("damaged", "missing", "vanished", "stale"))

    facts = json.loads(run(features, "inspect", made / "c.h5", "--json").out)
    assert (facts["labels"]["y"], facts["status"]) == ({"": 1}, {"ok": 3, "partial": 1})

    write_numbered(made / "long.mp4", 300)
    changed = json.loads(run(features, "verify", made / "c.h5", *sources, "--json").out)
    assert [stale["path"] for stale in changed["stale"]] == ["long.mp4#t=0,2", "long.mp4#t=3,5", "long.mp4#t=9"]
    os.utime(made / "images/walk/good/frame_1.png")
    more = extract(*sources, "-o", made / "c.h5", "--frames", 6)
    assert "3 extracted, 2 kept, 0 failed" in more.out
    assert "not in this source" not in more.out
    fewer = extract(made / "images", "-o", made / "c.h5", "--frames", 6, "--dry-run")
    assert "4 clips of the cache are not in this source; they stay in the cache" in fewer.out
    table = read_header(made / "c.h5").clips
    assert dict(zip(table.path.tolist(), table.status.tolist(), strict=True))["long.mp4#t=3,5"] == "ok"
    assert "long.mp4#t=9" in table.path.tolist()
