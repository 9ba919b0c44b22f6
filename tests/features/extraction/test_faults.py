"""Every row of the fault table of stage one, with real faults.

| row | where |
|---|---|
| 1-10, 13, 16, 17, 36 | here, all in one run: `harvest` |
| 11 variable frame rate | `test_decoder.py::test_variable_frame_rate_is_sampled_by_time` |
| 12, 14, 15 | here |
| 18, 19 kill -9 | `test_kills.py` |
| 20 SIGTERM | `test_extract.py::test_stopped_half_way_it_commits_and_goes_on_later`; Ctrl-C here |
| 21-23, 25-29 | here |
| 24 two writers, different clips | `test_kills.py::test_rows_23_24_many_writers_at_once`, more of row 23 too |
| 30 wrong shape or type | `test_hdf5.py::test_wrong_content_is_refused_with_expected_and_got`; the exit code here |
| 31 NaN or infinity | `test_hdf5.py::test_not_a_number_is_refused_when_written`, the same of row 30 when read,
  `test_encoders.py::test_a_feature_that_is_not_finite_is_a_failure`; the command's exit code here |
| 36 odd names | here; in reports `test_page.py::test_hostile_names_are_inert_and_kept` |
| 37 symlink loop | `test_discover.py::test_symlink_loop_is_walked_once` |
| 38 100,000 files | here |
"""

import errno
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import av
import av.logging
import h5py
import numpy as np
import pytest
import torch

from features.cache.hdf5 import CacheHeader, read_cache, read_header
from features.cache.parts import parts_folder
from features.config import ExtractSettings
from features.errors import ArtifactError, RuntimeEnvironmentError
from features.extraction.extract import extract_to_cache
from features.sources.discover import find_clips
from features.spec import Sampling
from features.types import FrameBatch
from features.utils.files import remove_stale_temporaries
from features.utils.worker_pool import run_tasks
from features.video.decoder import read_frames
from features.video.sampling import make_row_sampler
from hazard.cli.train import train_temporal
from tests.conftest import Run
from tests.helpers.data.planted import ODD_NAMES, PLAYLISTS, MisbehavingExtractJob, detect_opening, write_faulty_files
from tests.helpers.data.synthetic_tracks import replace_extraction
from tests.helpers.data.videos import (
    flip_bits,
    make_fifo,
    truncate,
    write_enormous,
    write_numbered,
    write_textured,
)
from tests.helpers.paths import ROOT

SETTINGS = ExtractSettings(weights="random", reduce="none", device="cpu", runtime="torch", workers=1, part_clips=1)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    av.logging.set_level(None)


@pytest.fixture(scope="module")
def harvest(tmp_path_factory: pytest.TempPathFactory) -> CacheHeader:
    """The cache of one run over all faulty files."""
    folder = tmp_path_factory.mktemp("faults")
    write_faulty_files(folder)
    settings = SETTINGS.model_copy(update={"deadline_seconds": 20.0, "part_clips": 128})
    summary = extract_to_cache(find_clips([folder]), folder / "c.h5", settings)
    assert summary.header is not None
    assert summary.failed == len(summary.header.failures) > 0
    assert summary.seconds < 120
    return summary.header


def ledger(header: CacheHeader, start: str) -> dict[str, str]:
    """Return stage and reason of the failed files whose names begin with `start`. None of them has features."""
    table = header.failures
    found = {
        str(path): f"{stage}: {reason}"
        for path, stage, reason in zip(table.path, table.stage, table.reason, strict=True)
        if path.startswith(start)
    }
    assert not found.keys() & set(header.clips.path.tolist())
    return found


def kept(header: CacheHeader, path: str) -> tuple[str, float, int]:
    """Return status, decoded share and rows of a clip that has features."""
    assert path not in header.failures.path
    i = header.clips.path.tolist().index(path)
    return str(header.clips.status[i]), float(header.clips.decoded_share[i]), int(header.clips.length[i])


def test_row_01_zero_bytes(harvest: CacheHeader) -> None:
    assert ledger(harvest, "01") == {"01 zero.mp4": "open: empty file"}


def test_row_02_text_and_noise(harvest: CacheHeader) -> None:
    found = ledger(harvest, "02")
    assert len(found) == 2
    assert all(reason.startswith("open: not a video") for reason in found.values())


def test_row_03_images(harvest: CacheHeader) -> None:
    found = ledger(harvest, "03")
    assert found.keys() == {"03 image.mp4", "03 image.avi"}
    assert all(reason.startswith("open: not a video") for reason in found.values())


def test_row_04_no_index(harvest: CacheHeader) -> None:
    assert ledger(harvest, "04")["04 no index.mp4"].startswith("open: not a video, or damaged")


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_row_05_truncated(harvest: CacheHeader, suffix: str) -> None:
    status, share, rows = kept(harvest, f"05 0.8.{suffix}")
    assert (status, rows) == ("partial", 12)
    assert 0.6 < share < 0.9
    assert re.search(r"decode: only \d+% of the video could be decoded", ledger(harvest, "05")[f"05 0.4.{suffix}"])


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_row_06_overwritten_in_the_middle(harvest: CacheHeader, suffix: str) -> None:
    status, share, rows = kept(harvest, f"06.{suffix}")
    assert status == "partial"
    assert 0.5 <= share < 0.95
    assert rows >= 6


def test_row_06_a_variable_frame_rate_is_no_damage(tmp_path: Path) -> None:
    """A camera that records only motion leaves gaps in time, but none in the bytes."""
    times = [i / 25 + (i // 20) for i in range(60)]
    batch = seen(write_numbered(tmp_path / "v.mkv", 60, times=times))
    assert batch.decoded_share == 1.0


def test_row_07_bit_flips(harvest: CacheHeader) -> None:
    assert re.match(r"decode: (only \d+%|no frame)", ledger(harvest, "07")["07 many.mp4"])
    status, share, _ = kept(harvest, "07 few.mp4")
    assert status == "partial"
    assert 0.5 <= share < 1


def test_row_07_hardly_a_garbage_picture_is_taken_for_sound(tmp_path: Path) -> None:
    good = seen(write_textured(tmp_path / "good.mp4", 100))
    garbage = taken = 0
    for seed in range(8):
        with suppress(Exception):
            met = seen(flip_bits(write_textured(tmp_path / "bad.mp4", 100), 4, seed))
            taken += len(met.data)
            sound = {round(t, 3): image.astype(int) for t, image in zip(good.times, good.data, strict=True)}
            garbage += sum(
                np.abs(sound[round(t, 3)] - image).mean() > 12 for t, image in zip(met.times, met.data, strict=True)
            )
    assert taken > 200
    assert garbage <= 0.1 * taken


def seen(path: Path) -> FrameBatch:
    return read_frames(path, make_row_sampler(Sampling(frames=100)), lambda image: image)


def test_row_08_audio_only(harvest: CacheHeader) -> None:
    assert ledger(harvest, "08") == {"08.mp4": "open: no video stream"}


def test_row_09_no_frames(harvest: CacheHeader) -> None:
    found = ledger(harvest, "09")
    assert found["09.avi"] == "decode: no frame could be decoded"
    assert found["09.mp4"] == "open: no video stream"  # an MP4 does not even list a track without a sample


def test_row_10_one_frame_is_one_row(harvest: CacheHeader) -> None:
    assert kept(harvest, "10.mp4") == ("ok", 1.0, 1)


def test_row_12_rotated_by_metadata_gives_the_features_of_the_upright_copy(tmp_path: Path, extract: Run) -> None:
    sharp = {"preset": "ultrafast", "qp": "4"}
    how = {"options": sharp, "size": (320, 240), "cell": 40}
    write_textured(tmp_path / "lying.mp4", 10, **how)
    write_textured(tmp_path / "rotated.mp4", 10, **how, rotation=90)
    write_textured(tmp_path / "upright.mp4", 10, **how, quarter_turns=1)
    assert extract(tmp_path, "-o", tmp_path / "c.h5", "--reduce", "none").code == 0
    lying, rotated, upright = read_cache(tmp_path / "c.h5").features.astype(float).reshape(3, 10, -1)
    assert np.linalg.norm(rotated - upright) < 0.2 * np.linalg.norm(lying - upright)


@pytest.mark.parametrize("suffix", ["avi", "mov"])
def test_row_13_enormous_frames_are_refused_from_the_header(tmp_path: Path, suffix: str) -> None:
    """A frame of 15360 x 8640 is 133 MB of YCbCr and 398 MB of RGB."""
    path = write_enormous(tmp_path / f"big.{suffix}")
    if suffix == "mov":  # a false header: the frames themselves are enormous
        data = bytearray(path.read_bytes())
        sizes = data.find(b"jpeg", data.find(b"stsd")) + 28
        data[sizes : sizes + 4] = (64).to_bytes(2, "big") + (48).to_bytes(2, "big")
        (tmp_path / "lying.mov").write_bytes(data)
    for file in tmp_path.iterdir():
        grown = grown_bytes(f"""
            try: read_frames(Path({str(file)!r}), make_row_sampler(Sampling()), lambda image: image)
            except ClipError as error: assert 'frame too large: 15360x8640' in error.reason, error
            else: raise SystemExit(1)
        """)
        assert grown < 60e6


def grown_bytes(body: str) -> int:
    """Return how many bytes the peak memory of a new process grows while it runs `body`."""
    lines = [line[12:] for line in body.splitlines() if line.strip()]
    script = "\n".join(
        [
            "import resource; from pathlib import Path",
            "from features.errors import ClipError; from features.spec import Sampling",
            "from features.video.sampling import make_row_sampler",
            "from features.video.decoder import read_frames",
            "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024",
            "before = peak()",
            *lines,
            "print(peak() - before)",
        ]
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.fixture
def misbehaved(tmp_path: Path, numbered: Path, extract: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run over three good clips, one that hangs its decoder and one that crashes it."""
    for name in ("a", "b hang", "c", "d crash", "e"):
        shutil.copy(numbered / "calm" / "0.mp4", tmp_path / f"{name}.mp4")
    monkeypatch.setattr("features.extraction.local_engine.ExtractJob", MisbehavingExtractJob)
    return lambda: extract(tmp_path, "-o", tmp_path / "c.h5", "--set", "deadline_seconds=4")


def test_row_14_hang_and_row_15_crash(misbehaved: Run, tmp_path: Path) -> None:
    ran = misbehaved()
    assert ran.code == 3
    assert "3 extracted, 0 kept, 2 failed" in ran.out
    header = read_header(tmp_path / "c.h5")
    assert header.clips.path.tolist() == ["a.mp4", "c.mp4", "e.mp4"]
    assert ledger(header, "") == {
        "b hang.mp4": "decode: timeout: nothing decoded for 4 s",
        "d crash.mp4": "decode: the decoder crashed (SIGSEGV)",
    }


def test_row_14_what_hung_is_not_tried_again_unasked(misbehaved: Run) -> None:
    misbehaved()
    again = misbehaved()
    assert "2 clips failed before" in again.out
    assert "0 failed in" in again.out


class DiesLater:
    """A worker that finishes its task and dies while it is idle."""

    def start(self) -> Callable:
        def work(task, alive):  # type: ignore[no-untyped-def]
            if task == "slow":
                time.sleep(3)
            else:
                threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
            return task

        return work


def test_row_15_a_worker_that_dies_idle_loses_nothing() -> None:
    done = list(run_tasks(DiesLater(), ["slow", "quick"], workers=2, deadline_seconds=30))
    assert sorted(done) == [("quick", "quick"), ("slow", "slow")]


def test_row_16_pipes_devices_and_folders(harvest: CacheHeader) -> None:
    found = ledger(harvest, "16")
    assert found.pop("16 gone.mp4") == "open: no such file or directory"
    assert found == dict.fromkeys(
        ["16 pipe.mp4", "16 device.mp4", "16 socket.mp4"], "open: not a regular file"
    )  # a folder is a folder, whatever its name


def test_row_16_a_manifest_that_names_a_folder_and_a_pipe(tmp_path: Path, extract: Run) -> None:
    (tmp_path / "folder.mp4").mkdir()
    make_fifo(tmp_path / "pipe.mp4")
    write_numbered(tmp_path / "good.mp4", 5)
    (tmp_path / "m.csv").write_text("path\nfolder.mp4\npipe.mp4\ngood.mp4\n")
    assert extract(tmp_path / "m.csv", "-o", tmp_path / "c.h5").code == 3
    assert set(ledger(read_header(tmp_path / "c.h5"), "").values()) == {"open: not a regular file"}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_row_17_a_playlist_never_opens_what_it_names(tmp_path: Path, kind: str) -> None:
    canary = write_numbered(tmp_path / "canary.mp4", 30).rename(tmp_path / "canary.bin")
    (tmp_path / "playlist.mp4").write_text(PLAYLISTS[kind])
    with detect_opening(canary) as was_opened:
        summary = extract_to_cache(find_clips([tmp_path]), tmp_path / "c.h5", SETTINGS)
        assert not was_opened()
        if kind == "ffconcat":  # the check itself works: this does open the file
            av.open(str(tmp_path / "playlist.mp4"), format="concat", options={"safe": "0"}).close()
            assert was_opened()
    assert summary.failed == 1
    assert next(iter(summary.failures)).startswith("open: not a video")


def command(source: Path, output: Path, *options: str) -> list[str]:
    script = str(ROOT / "extract_features.py")
    return [
        sys.executable,
        script,
        str(source),
        "-o",
        str(output),
        "--weights",
        "random",
        "--runtime",
        "torch",
        "--workers",
        "1",
        *options,
    ]


def test_row_20_ctrl_c_commits_what_is_finished(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    first = write_textured(clips / "000.mp4", 250)
    for i in range(1, 200):
        os.link(first, clips / f"{i:03d}.mp4")
    process = subprocess.Popen(
        command(clips, tmp_path / "c.h5", "--set", "part_clips=1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # its own process group, as in a terminal
    )
    while not list(tmp_path.glob("c.h5.parts/part-*.h5")):
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again to continue" in out
    assert "Traceback" not in err
    assert list(tmp_path.glob("c.h5.parts/part-*.h5"))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


ONE_LINE = re.compile(r"error: no space to write \S+ \(.+; \d+\.\d MB needed, \d+\.\d MB free there\); .+ again; .+\n")


def assert_full(code: int, err: str) -> None:
    assert code == 5
    assert ONE_LINE.fullmatch(err[err.index("error:") :])
    assert "Traceback" not in err


def nothing_temporary(folder: Path) -> bool:
    return not [path for path in folder.rglob(".*") if ".tmp-" in path.name]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Synthetic features without decoding, for tests of how they are stored."""
    replace_extraction(monkeypatch)


@pytest.mark.usefixtures("quick")
def test_row_21_disk_full_while_committing_a_part(numbered: Path, tmp_path: Path, extract: Run) -> None:
    output = tmp_path / "c.h5"
    with largest_file(10_000):
        ran = extract(numbered, "-o", output, "--reduce", "none")
    assert_full(ran.code, ran.err)
    assert nothing_temporary(tmp_path)
    assert not output.exists()
    assert "6 extracted" in extract(numbered, "-o", output, "--reduce", "none").out


@pytest.mark.usefixtures("quick")
def test_row_21_disk_full_while_consolidating(numbered: Path, tmp_path: Path, extract: Run) -> None:
    output = tmp_path / "c.h5"
    options = ("--set", "part_clips=1", "--reduce", "none")
    extract(numbered, "-o", tmp_path / "d.h5", *options)
    with largest_file((tmp_path / "d.h5").stat().st_size - 1000):
        ran = extract(numbered, "-o", output, *options)
    assert_full(ran.code, ran.err)
    assert nothing_temporary(tmp_path)
    assert not output.exists()
    assert len(list(parts_folder(output).iterdir())) == 6
    rest = extract(numbered, "-o", output, *options)
    assert (rest.code, "0 to extract" in rest.out) == (0, True)
    assert read_header(output).content_digest == read_header(tmp_path / "d.h5").content_digest


@pytest.mark.usefixtures("quick")
def test_row_21_small_file_system(numbered: Path, tmp_path: Path, extract: Run) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("no right to mount a small file system")
    try:
        ran = extract(numbered, "-o", folder / "c.h5", "--set", "part_clips=1", "--reduce", "none")
        assert_full(ran.code, ran.err)
        assert nothing_temporary(folder)
        assert not (folder / "c.h5").exists()
        done = len(list(parts_folder(folder / "c.h5").iterdir()))
        assert done >= 1
        subprocess.run(["mount", "-o", "remount,size=4m", folder], check=True)
        rest = extract(numbered, "-o", folder / "c.h5", "--set", "part_clips=1", "--reduce", "none")
        assert (rest.code, f"6 clips: {6 - done} to extract" in rest.out) == (0, True)
        assert len(read_cache(folder / "c.h5").clips) == 6
    finally:
        subprocess.run(["umount", folder], check=True)


def test_row_22_folder_not_writable_stops_before_the_model(numbered: Path, tmp_path: Path, extract: Run) -> None:
    """If the model were loaded first, the error would be about the missing weights."""
    forbidden = Path("/sys")  # not even root may make a file there
    if os.geteuid() == 0 and not os.path.ismount(forbidden):
        pytest.skip("root may write everywhere: /sys is not mounted")
    if os.geteuid():
        forbidden = tmp_path / "forbidden"
        forbidden.mkdir(mode=0o555)
    ran = extract(numbered, "-o", forbidden / "c.h5", "--weights", "absent.pth")
    assert ran.code == 5
    assert re.search(r"error: cannot write \S+c\.h5: .*denied", ran.err)
    assert "Traceback" not in ran.err


def together(*arguments: Sequence[str]) -> list[subprocess.CompletedProcess]:
    """Run the command once for each set of arguments, all at the same time."""
    script = (
        "import sys; from features.cli.extract import main; import features.extraction.extract; "
        "print(flush=True); sys.stdin.readline(); main()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, *given],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for given in arguments
    ]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    done = [(process, *process.communicate(timeout=120)) for process in processes]
    return [subprocess.CompletedProcess(process.args, process.returncode, out, err) for process, out, err in done]


def test_row_23_two_writers_of_the_same_clips(numbered: Path, tmp_path: Path, extract: Run) -> None:
    output = tmp_path / "c.h5"
    options = ["--reduce", "pca:8", "--set", "part_clips=1"]
    ran = together(*[command(numbered, output, *options)[2:]] * 2)
    assert [(process.returncode, process.stderr.count("error")) for process in ran] == [(0, 0)] * 2
    assert extract(numbered, "-o", tmp_path / "alone.h5", *options).code == 0
    cache = read_cache(output)
    assert len(cache.clips) == 6
    assert cache.content_digest == read_cache(tmp_path / "alone.h5").content_digest
    assert not parts_folder(output).exists()
    assert nothing_temporary(tmp_path)


@pytest.mark.usefixtures("quick")
def test_row_25_stale_temporary_files_are_swept_and_live_ones_kept(
    numbered: Path, tmp_path: Path, extract: Run
) -> None:
    output, host = tmp_path / "c.h5", socket.gethostname()
    parts_folder(output).mkdir()
    gone = subprocess.Popen(["true"])
    gone.wait()
    stale = [folder / f".c.h5.tmp-{host}-{gone.pid}" for folder in (tmp_path, parts_folder(output))]
    live = [tmp_path / f".c.h5.tmp-{host}-{os.getppid()}", tmp_path / f".c.h5.tmp-elsewhere-{gone.pid}"]
    for file in [*stale, *live]:
        file.write_bytes(b"half of a cache")
    assert extract(numbered, "-o", output, "--reduce", "none").code == 0
    assert not any(file.exists() for file in stale)
    assert all(file.exists() for file in live)
    assert remove_stale_temporaries(tmp_path) == 0


@pytest.fixture
def parts(quick: None, numbered: Path, tmp_path: Path) -> list[Path]:
    """The parts of a job that was stopped after four of its six clips."""
    output = tmp_path / "c.h5"
    folder = parts_folder(output)
    extract_to_cache(
        find_clips([numbered]), output, SETTINGS, is_stopped=lambda: len(list(folder.glob("part-*.h5"))) >= 4
    )
    return sorted(folder.glob("part-*.h5"), key=lambda path: read_header(path).created)


@pytest.fixture
def undisturbed(quick: None, numbered: Path, tmp_path: Path) -> str:
    """The content digest of an undisturbed run."""
    header = extract_to_cache(find_clips([numbered]), tmp_path / "undisturbed.h5", SETTINGS).header
    assert header is not None
    return header.content_digest


def flip(path: Path, share: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(share * len(data))] ^= 0x10
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "26 flipped at the start": lambda path: flip(path, 0.0),
    "26 flipped in the middle": lambda path: flip(path, 0.5),
    "26 flipped near the end": lambda path: flip(path, 0.99),
    "27 truncated by half": lambda path: truncate(path, 0.5),
    "27 truncated to nothing": lambda path: truncate(path, 0.0),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("damage", DAMAGE)
def test_rows_26_27_damaged_part_is_named_and_extracted_again(
    numbered: Path, tmp_path: Path, parts: list[Path], undisturbed: str, extract: Run, damage: str
) -> None:
    before = len(parts)
    DAMAGE[damage](parts[1])
    ran = extract(numbered, "-o", tmp_path / "c.h5", "--reduce", "none")
    assert ran.code == 0
    assert f"6 clips: {6 - before + 1} to extract" in ran.out
    assert f"damaged part {parts[1].name} is deleted" in ran.out
    assert read_cache(tmp_path / "c.h5").content_digest == undisturbed


def test_row_26_training_refuses_a_cache_with_a_flipped_bit(
    numbered: Path, tmp_path: Path, extract: Run, run: Run
) -> None:
    output = tmp_path / "c.h5"
    extract(numbered, "-o", output)
    flip_a_feature(output)
    ran = run(train_temporal, output, "-o", tmp_path / "model")
    assert ran.code == 4
    assert f"{output} rejected: damaged" in ran.err
    assert not (tmp_path / "model").exists()


def flip_a_feature(path: Path) -> None:
    with h5py.File(path) as file:
        at = file["features"].id.get_chunk_info(0).byte_offset + 1000
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def test_row_26_extraction_does_a_damaged_cache_again(numbered: Path, tmp_path: Path, extract: Run) -> None:
    output = tmp_path / "c.h5"
    extract(numbered, "-o", output)
    expected = read_header(output).content_digest
    flip_a_feature(output)
    ran = extract(numbered, "-o", output)
    assert ran.code == 0
    assert str(output) in ran.out
    assert "damaged" in ran.out
    assert read_cache(output).content_digest == expected


@pytest.mark.usefixtures("quick")
def test_row_26_damage_is_never_carried_into_a_new_cache(numbered: Path, tmp_path: Path) -> None:
    """Consolidation checks the old cache before it copies from it, and leaves it alone; the next run repairs it."""
    output = tmp_path / "c.h5"
    clips = find_clips([numbered])
    extract_to_cache(clips[:4], output, SETTINGS)

    def damage(plan: object) -> None:
        with h5py.File(output, "r+") as file:  # no checksum covers an attribute
            file.attrs["content_digest"] = "0" * 64

    with pytest.raises(ArtifactError, match="does not match its digest"):
        extract_to_cache(clips, output, SETTINGS, announce=damage)
    damaged = output.read_bytes()
    summary = extract_to_cache(clips, output, SETTINGS)
    assert (summary.cached, summary.extracted) == (len(clips) - 4, 4)
    assert len(read_cache(output).clips) == len(clips)
    assert (tmp_path / "c.h5.damaged").read_bytes() == damaged


@pytest.mark.usefixtures("quick")
def test_a_foreign_file_as_output_is_refused_and_left_alone(numbered: Path, tmp_path: Path, extract: Run) -> None:
    output = tmp_path / "data.h5"
    with h5py.File(output, "w") as file:
        file["mine"] = [1, 2, 3]
    for content in (output.read_bytes(), b"my thesis"):
        output.write_bytes(content)
        ran = extract(numbered, "-o", output)
        assert (ran.code, output.read_bytes()) == (4, content)
        assert re.search("not a feature cache.*give another path", ran.err)


def vanish(parts: list[Path]) -> None:
    parts[1].unlink()


def damage_late(parts: list[Path]) -> None:
    flip(parts[1], 0.5)


def vanish_all(parts: list[Path]) -> None:
    shutil.rmtree(parts[0].parent)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("disturb", [vanish, damage_late, vanish_all])
def test_row_28_part_missing_at_consolidation(
    numbered: Path, tmp_path: Path, parts: list[Path], undisturbed: str, disturb: Callable[[list[Path]], None]
) -> None:
    """The part exists when the work is planned and is missing when the cache is built."""
    output, clips = tmp_path / "c.h5", find_clips([numbered])
    lost = read_header(parts[1]).clips.path[0]
    with pytest.raises(RuntimeEnvironmentError, match=rf"missing or damaged.*run the same command again.*{lost}"):
        extract_to_cache(clips, output, SETTINGS, announce=lambda plan: disturb(parts))
    assert not output.exists()
    header = extract_to_cache(clips, output, SETTINGS).header
    assert header is not None
    assert header.content_digest == undisturbed


@pytest.mark.usefixtures("quick")
def test_row_28_part_that_vanishes_as_soon_as_it_is_written(
    numbered: Path, tmp_path: Path, undisturbed: str, extract: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, clips, removed = tmp_path / "c.h5", find_clips([numbered]), []

    def is_stopped() -> bool:
        if not removed and (found := list(parts_folder(output).glob("part-*.h5"))):
            found[0].unlink()
            removed.append(found[0])
        return False

    with pytest.raises(
        RuntimeEnvironmentError, match=r"run the same command again to extract these clips: \w+/\d.mp4$"
    ):
        extract_to_cache(clips, output, SETTINGS, is_stopped=is_stopped)
    header = extract_to_cache(clips, output, SETTINGS).header
    assert header is not None
    assert header.content_digest == undisturbed


def test_row_29_other_weights_are_refused_and_the_field_is_named(numbered: Path, tmp_path: Path, extract: Run) -> None:
    """Other settings: `test_extract.py::test_other_settings_are_refused_and_named`."""
    from torchvision.models import mobilenet_v2

    torch.manual_seed(1)
    torch.save(mobilenet_v2().state_dict(), tmp_path / "w.pth")
    output = tmp_path / "c.h5"
    source = numbered / "calm" / "0.mp4"
    assert extract(source, "-o", output).code == 0
    before = output.read_bytes()
    ran = extract(source, "-o", output, "--weights", tmp_path / "w.pth")
    assert ran.code == 4
    assert re.search(r"weights: random, not pretrained; weights_digest: random.*, not [0-9a-f]{12}", ran.err)
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros((72, 512), np.float32), r"must be float16 \(R, D\), got float32 \(72, 512\)"),
        (np.zeros((70, 512), np.float16), "expected 72 rows, got 70 features"),
        (np.full((72, 512), np.inf, np.float16), "NaN or infinity"),
    ],
)
def test_rows_30_31_crafted_caches_are_refused_by_training(
    numbered: Path, tmp_path: Path, extract: Run, run: Run, value: np.ndarray, said: str
) -> None:
    output = tmp_path / "c.h5"
    extract(numbered, "-o", output)
    with h5py.File(output, "r+") as file:
        del file["features"]
        file["features"] = value
    ran = run(train_temporal, output, "-o", tmp_path / "model")
    assert ran.code == 4
    assert re.search(said, ran.err)
    assert "Traceback" not in ran.err


def test_row_36_odd_names_are_processed(harvest: CacheHeader) -> None:
    names = [name.decode("utf-8", "backslashreplace") for name in ODD_NAMES]
    for name in names:
        assert kept(harvest, f"36 {name}") == ("ok", 1.0, 12)
    assert len(set(names)) == len(ODD_NAMES)


def test_row_38_a_hundred_thousand_files(tmp_path: Path) -> None:
    source = tmp_path / "0"
    source.touch()
    count, a_folder = 100_000, 10_000
    for start in range(0, count, a_folder):
        folder = tmp_path / f"label {start}"
        folder.mkdir()
        for i in range(start, start + a_folder):
            try:
                os.link(source, folder / f"{i:06d}.mp4")
            except OSError as error:
                if error.errno != errno.EMLINK:
                    raise
                (source := folder / f"{i:06d}.mp4").touch()
    tracemalloc.start()
    try:
        clips = find_clips([tmp_path])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(clips) == count
    assert peak < 1500 * count
