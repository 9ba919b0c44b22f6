"""Extraction killed by SIGKILL at random moments: nothing committed is lost, and the final cache is always the same.

Rows 18, 19, 23 and 24 of the fault table. Children are forked from this process and their features are synthetic, so
that a kill costs milliseconds. The moment of a kill is counted in calls that change files, because times differ
between machines. The last test kills the real command.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from features.cache.consolidate import consolidate
from features.cache.hdf5 import CacheHeader, read_header, verify_cache
from features.cache.parts import parts_folder, read_parts, remove_parts, write_part
from features.config import ExtractSettings
from features.extraction.extract import extract_to_cache
from features.types import Clip
from features.utils.files import write_atomically
from tests.helpers.data.synthetic_tracks import make_clips, make_spec, make_track, replace_extraction
from tests.helpers.data.videos import write_textured
from tests.helpers.paths import ROOT

KILLS = 70
"""Number of kills in each test."""
MOMENT = 0.0003
"""Largest delay of a kill after a call, in seconds. A child can also die in the next calls, or between them."""
CHANGING = {
    "write",
    "fsync",
    "link",
    "mkdir",
    "unlink",
    "rmdir",
}  # and os.replace, which is compared itself because str has a method of that name
CLIPS = make_clips(24)
SETTINGS = ExtractSettings(weights="random", device="cpu", reduce="pca:8", part_clips=2)


@pytest.fixture(autouse=True)
def _without_videos(monkeypatch: pytest.MonkeyPatch) -> None:
    replace_extraction(monkeypatch)


def extract(output: Path, clips: Sequence[Clip] = CLIPS, settings: ExtractSettings = SETTINGS) -> CacheHeader:
    header = extract_to_cache(clips, output, settings).header
    assert header is not None
    return header


def forked(work: Callable[[], object]) -> int:
    """Return the PID of a child that runs `work` and exits with 0, or with 1 if it raised."""
    if pid := os.fork():
        return pid
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def at_call(number: int, then: Callable[[], object], work: Callable[[], object]) -> int:
    """Run `work`, and `then` before its call `number` that changes files. Returns the number of such calls."""
    calls = 0

    def count(frame: object, event: str, called: object) -> None:
        nonlocal calls
        if event == "c_call" and (called is os.replace or getattr(called, "__name__", "") in CHANGING):
            calls += 1
            if calls == number:
                then()

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def killed(work: Callable[[], object], at: int, after: float) -> bool:
    """Run `work` in a child that is killed `after` seconds after a call. Returns False if it finished before."""

    def arm() -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process wherever it is, like SIGKILL
        signal.setitimer(signal.ITIMER_REAL, after)

    status = os.waitpid(forked(lambda: at_call(at, arm, work)), 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def committed(output: Path) -> set[str]:
    """Return the clips in cache and parts, and check that every file with a final name is complete."""
    parts, damaged = read_parts(output, make_spec(SETTINGS.reduce))
    assert not damaged
    held = {str(path) for part in parts for path in part.header.clips.path}
    return held | ({str(path) for path in verify_cache(output).clips.path} if output.exists() else set())


def nothing_is_left_but(folder: Path, *names: str) -> bool:
    return {path.name for path in folder.iterdir()} <= {*names, *(f".{name}.lock" for name in names)}


def test_row_18_killed_while_extracting(tmp_path: Path) -> None:
    whole = at_call(0, os.abort, lambda: extract(tmp_path / "alone.h5"))
    expected = read_header(tmp_path / "alone.h5").content_digest
    rng, kills, with_work = random.Random(18), 0, 0
    while kills < KILLS:
        folder = tmp_path / str(kills)
        folder.mkdir(exist_ok=True)
        output, held = folder / "c.h5", set[str]()
        for _ in range(5):
            if not killed(lambda output=output: extract(output), rng.randint(1, whole), rng.uniform(1e-6, MOMENT)):
                break
            kills += 1
            now = committed(output)
            assert now >= held
            with_work += len(now) > len(held)
            held = now
        assert extract(output).content_digest == expected
        assert verify_cache(output).content_digest == expected
        assert not parts_folder(output).exists()
        assert nothing_is_left_but(folder, "c.h5")
        shutil.rmtree(folder)
    assert with_work >= 10


@pytest.mark.parametrize("has_cache", [False, True])
def test_row_19_killed_while_consolidating(tmp_path: Path, has_cache: bool) -> None:
    start = tmp_path / "start"
    start.mkdir()
    if has_cache:
        extract(start / "c.h5", CLIPS[::2])
    for at in range(0, len(CLIPS), 2):
        write_part(
            start / "c.h5",
            [make_track(clip) for clip in CLIPS[at : at + 2]],
            [],
            spec=make_spec("pca:8"),
            weights_file="",
        )
    old = (start / "c.h5").read_bytes() if has_cache else b""

    def work(output: Path) -> None:
        consolidate(output, make_spec("pca:8"), CLIPS, weights_file="")

    alone = Path(shutil.copytree(start, tmp_path / "alone")) / "c.h5"
    whole = at_call(0, os.abort, lambda: work(alone))
    expected = verify_cache(alone).content_digest
    rng, kills, olds, news = random.Random(19 + has_cache), 0, 0, 0
    while kills < KILLS / 2:
        folder = Path(shutil.copytree(start, tmp_path / "killed"))
        output = folder / "c.h5"
        kills += killed(lambda output=output: work(output), rng.randint(1, whole), rng.uniform(1e-6, MOMENT))
        content = output.read_bytes() if output.exists() else b""
        if content == old:
            olds += 1
        else:
            news += 1
            assert verify_cache(output).content_digest == expected
        assert committed(output) == {clip.path for clip in CLIPS}
        work(output)
        assert verify_cache(output).content_digest == expected
        assert not parts_folder(output).exists()
        assert nothing_is_left_but(folder, "c.h5")
        shutil.rmtree(folder)
    assert olds >= 3 and news >= 3


@pytest.mark.parametrize("kind", ["same", "different", "overlapping"])
def test_rows_23_24_many_writers_at_once(tmp_path: Path, kind: str) -> None:
    """Parts are committed while other processes consolidate, clean up and remove the folder."""
    settings = SETTINGS.model_copy(update={"reduce": "none", "part_clips": 1})
    expected = extract(tmp_path / "alone.h5", settings=settings).content_digest
    shares = {
        "same": [CLIPS] * 4,
        "different": [CLIPS[i::6] for i in range(6)],
        "overlapping": [CLIPS[:16], CLIPS[8:]],
    }
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        output = folder / "c.h5"
        children = [forked(lambda c=clips, o=output: extract(o, c, settings)) for clips in shares[kind]]
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * len(children)
        assert verify_cache(output).content_digest == expected
        assert not parts_folder(output).exists()
        assert nothing_is_left_but(folder, "c.h5")


def test_row_24_the_folder_of_parts_goes_just_when_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process consolidated, found the folder empty and removed it."""
    output, calls = tmp_path / "c.h5", []

    def write(path: Path, content: bytes) -> None:
        calls.append(path)
        if len(calls) == 1:
            path.parent.rmdir()
        write_atomically(path, content)

    monkeypatch.setattr("features.cache.parts.write_atomically", write)
    path = write_part(output, [make_track(CLIPS[0])], [], spec=make_spec("none"), weights_file="")
    assert committed(output) == {CLIPS[0].path}
    remove_parts(output, [path])
    assert not parts_folder(output).exists()


def descendants(pid: int) -> list[int]:
    """Return the PIDs of all descendants of a process."""
    parents: dict[int, int] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found, fresh = [], {pid}
    while fresh:
        fresh = {child for child, parent in parents.items() if parent in fresh}
        found += fresh
    return found


def all_ended(pids: list[int], seconds: float = 60.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(is_running(pid) for pid in pids):
            return True
        time.sleep(0.05)
    return False


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_row_18_a_worker_whose_parent_is_killed_ends_even_if_its_decoder_hangs() -> None:
    script = (
        "from tests.helpers.pool_jobs import ScriptedJob; from features.utils.worker_pool import run_tasks\n"
        "for _ in run_tasks(ScriptedJob(), ['a', 'hang', 'hang'], workers=2, deadline_seconds=600): print(flush=True)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        children = descendants(process.pid)
        process.kill()
    assert len(children) >= 3  # the fork server and two workers
    assert all_ended(children)


@pytest.mark.long
def test_row_18_the_real_command_killed(tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for i in range(60):
        write_textured(clips / f"{i:02d}.mp4", 50, seed=i)
    options = ["--runtime", "torch", "--weights", "random", "--workers", "2", "--set", "part_clips=2"]
    command = [sys.executable, str(ROOT / "extract_features.py"), str(clips), *options, "-o"]
    output, rng = tmp_path / "c.h5", random.Random(180)
    for kill in range(4):
        before = len(list(tmp_path.glob("c.h5.parts/part-*.h5")))
        with subprocess.Popen([*command, str(output)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while len(list(tmp_path.glob("c.h5.parts/part-*.h5"))) < before + 1 + kill:
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.1))
            children = descendants(process.pid)
            process.kill()
        assert len(children) >= 3
        assert all_ended(children)
    subprocess.run([*command, str(output)], check=True, capture_output=True)
    subprocess.run([*command, str(tmp_path / "d.h5")], check=True, capture_output=True)
    assert read_header(output).content_digest == read_header(tmp_path / "d.h5").content_digest
    assert not parts_folder(output).exists()
