"""Caches managed as a user does it: inspect, verify, merge, shards."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from features.cache.consolidate import consolidate
from features.cache.hdf5 import read_cache, read_header
from features.cache.parts import parts_folder, write_part
from features.cache.tables import make_failure_table
from features.cli.extract import extract_features
from features.cli.manage import features
from features.sources.shards import Shard
from features.types import Clip, Failure, FeatureTrack
from tests.conftest import Run
from tests.features.cache.test_hdf5 import track, write
from tests.helpers.data.specs import spec
from tests.helpers.data.videos import write_numbered
from tests.helpers.paths import ROOT

TORCH = ("--runtime", "torch")
RAW = {"spec": spec(reduction="none"), "reduction": None, "reduction_fitted_on": "", "failures": make_failure_table([])}


@pytest.fixture(scope="module")
def made(numbered: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `clips/`, six good clips and a bad one, and their cache `c.h5`."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copytree(numbered, folder / "clips")
    (folder / "clips" / "calm" / "bad.mp4").touch()
    arguments = [folder / "clips", "-o", folder / "c.h5", "--weights", "random", "--workers", "1", *TORCH]
    assert extract_features.main([str(a) for a in arguments], standalone_mode=False) == 3
    return folder


@pytest.fixture
def clips(made: Path, tmp_path: Path) -> Path:
    """A copy of the clips with the same sizes and times, so that the cache knows them."""
    return Path(shutil.copytree(made / "clips", tmp_path / "clips"))


@pytest.fixture
def cache(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made / "c.h5", tmp_path / "c.h5"))


def part_beside(cache: Path, names: list[str], failed: list[str], **changes: object) -> Path:
    header = read_header(cache)
    tracks = [replace(track(name, 3, 1280), clip=Clip(name, Path(name))) for name in names]
    failures = [Failure(Clip(name, Path(name)), "open", "empty file") for name in failed]
    return write_part(cache, tracks, failures, spec=header.spec.model_copy(update=changes), weights_file="")


def test_inspect_says_what_is_in_it(made: Path, run: Run) -> None:
    ran = run(features, "inspect", made / "c.h5")
    assert ran.code == 0
    header = read_header(made / "c.h5")
    for message in (
        "c.h5: 6 clips, 72 rows of 512 features, ",
        "frames       12 evenly spaced per clip",
        "backbone     mobilenet_v2, random weights",
        "reduction    select:512, fitted on all rows (no split is known)",
        header.fingerprint,
        f"reduction    {header.spec.reduction}",
        f"h5py {h5py.__version__}",
        "groups       none known",
        "status       6 ok, 0 partial",
        "no pending parts",
        "1 x open: empty file",
    ):
        assert message in ran.out
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["calm", "3", "3"] in rows
    assert ["all", "6", "6"] in rows


def test_inspect_as_json_has_the_same_facts(cache: Path, run: Run) -> None:
    part_beside(cache, ["new.mp4"], ["worse.mp4"])
    (parts_folder(cache) / f"part-{'0' * 64}.h5").write_bytes(b"no part")
    facts = json.loads(run(features, "inspect", cache, "--json").out)
    assert (facts["clips"], facts["rows"], facts["width"], facts["groups"]) == (6, 72, 512, 0)
    assert facts["labels"] == {"calm": {"": 3}, "wild": {"": 3}}
    assert facts["status"] == {"ok": 6, "partial": 0}
    assert (facts["failures"], facts["failure_reasons"]) == (1, {"open: empty file": 1})
    assert facts["spec"]["sampling"]["frames"] == 12
    assert facts["fingerprint"] == read_header(cache).fingerprint
    assert facts["waiting"] == {"parts": 1, "clips": 1, "failures": 1, "damaged": [f"part-{'0' * 64}.h5"]}
    assert facts["duration_seconds"] == pytest.approx(read_cache(cache).clips.duration.sum())


def test_inspect_shows_labels_by_split_and_names_that_would_break_a_line(tmp_path: Path, run: Run) -> None:
    labels = [("größe\n", "train"), ("größe\n", "test"), ("", "")]
    tracks = [track(f"{i}.mp4", 3) for i in range(3)]
    tracks = [replace(t, clip=replace(t.clip, label=la, split=s)) for t, (la, s) in zip(tracks, labels, strict=True)]
    ran = run(features, "inspect", write(tmp_path / "c.h5", tracks))
    rows = [line.split() for line in ran.out.splitlines()]
    assert ["label", "train", "test", "no", "split", "all"] in rows
    assert ["größe\\n", "1", "1", "0", "2"] in rows
    assert ["no", "label", "0", "0", "1", "1"] in rows
    assert "groups       1" in ran.out


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_an_absent_cache_is_a_usage_error(tmp_path: Path, run: Run, command: str) -> None:
    ran = run(features, command, tmp_path / "none.h5")
    assert (ran.code, "no cache at" in ran.err) == (2, True)


def test_verify_of_a_sound_cache(tmp_path: Path, run: Run) -> None:
    path = write(tmp_path / "c.h5", [track("a.mp4", 3)], **RAW)
    ran = run(features, "verify", path)
    assert ran.code == 0
    assert f"1 clip, 3 rows, content verified (sha256 {read_header(path).content_digest[:16]})" in ran.out
    assert "missing   not checked (give SOURCE to check)" in ran.out


def change_nothing(clips: Path) -> None:
    pass


def touch(clips: Path) -> None:
    os.utime(clips / "calm" / "0.mp4")


def add(clips: Path) -> None:
    write_numbered(clips / "wild" / "9.mp4", 20)


def remove(clips: Path) -> None:
    (clips / "wild" / "0.mp4").unlink()


def lengthen(clips: Path) -> None:
    with open(clips / "wild" / "0.mp4", "ab") as file:
        file.write(b"x")


def rewrite(clips: Path) -> None:
    file = clips / "wild" / "0.mp4"
    file.write_bytes(bytes(reversed(file.read_bytes())))


def mend(clips: Path) -> None:
    write_numbered(clips / "calm" / "bad.mp4", 20)


def pipe(clips: Path) -> None:
    (clips / "wild" / "0.mp4").unlink()
    os.mkfifo(clips / "wild" / "0.mp4")


@pytest.mark.parametrize(
    ("change", "kind", "path", "reason"),
    [
        (change_nothing, "failed", "calm/bad.mp4", "open: empty file"),
        (touch, "failed", "calm/bad.mp4", "open: empty file"),
        (add, "missing", "wild/9.mp4", "never extracted"),
        (remove, "vanished", "wild/0.mp4", "no longer in the source"),
        (lengthen, "stale", "wild/0.mp4", "now"),
        (rewrite, "stale", "wild/0.mp4", "same size, different content"),
        (mend, "stale", "calm/bad.mp4", "was 0 bytes"),
        (pipe, "stale", "wild/0.mp4", "no longer a regular file"),
    ],
)
def test_verify_compares_with_the_source(
    made: Path, clips: Path, run: Run, change: object, kind: str, path: str, reason: str
) -> None:
    change(clips)  # type: ignore[operator]
    ran = run(features, "verify", made / "c.h5", clips, "--json")
    verdict = json.loads(ran.out)
    assert ran.code == 3
    assert [f["path"] for f in verdict[kind]] == [path]
    assert reason in verdict[kind][0]["reason"]
    others = {"damaged", "missing", "vanished", "stale"} - {kind}
    assert all(verdict[other] == [] for other in others)
    text = run(features, "verify", made / "c.h5", clips).out
    assert f"{kind:<9} 1" in text
    assert path in text


def test_verify_names_ten_of_a_kind_unless_told_all(made: Path, clips: Path, run: Run) -> None:
    for i in range(12):
        (clips / "wild" / f"new\n{i:02d}.mp4").touch()
    few, everything = (run(features, "verify", made / "c.h5", clips, *more).out for more in ([], ["--all"]))
    assert "missing   12" in few
    assert "… and 2 more (--all lists them)" in few
    assert "new\\n11.mp4" not in few
    assert "new\\n11.mp4" in everything


def test_verify_of_a_manifest_whose_file_is_gone(made: Path, clips: Path, run: Run) -> None:
    (clips / "m.csv").write_text("path\ncalm/0.mp4\nabsent.mp4\n")
    verdict = json.loads(run(features, "verify", made / "c.h5", clips / "m.csv", "--json").out)
    assert {"path": "absent.mp4", "reason": "no such file or directory"} in verdict["vanished"]
    assert len(verdict["vanished"]) == 7  # the others of the cache are not in this source


def test_verify_names_damage(cache: Path, clips: Path, run: Run) -> None:
    part = part_beside(cache, ["a.mp4"], [])
    part.write_bytes(part.read_bytes()[:-1])
    foreign = part_beside(cache, ["b.mp4"], [], precision="bf16")
    ran = run(features, "verify", cache, clips)
    assert ran.code == 4
    assert f"{part.name}: damaged part" in ran.out
    assert f"{foreign.name}: a part with other settings (precision: fp32, not bf16)" in ran.out

    data = bytearray(cache.read_bytes())
    data[len(data) // 2] ^= 4
    cache.write_bytes(data)
    ran = run(features, "verify", cache, clips)
    assert ran.code == 4
    assert f"c.h5: {cache} rejected" in ran.out
    assert "Traceback" not in ran.err
    assert json.loads(run(features, "verify", cache, "--json").out)["missing"] is None


def raw_cache(path: Path, tracks: list[FeatureTrack], failed: tuple[str, ...] = (), **changes: object) -> Path:
    failures = make_failure_table([Failure(Clip(name, Path(name)), "open", f"in {path.stem}") for name in failed])
    return write(path, tracks, **(RAW | {"failures": failures} | changes))


def test_merge_keeps_each_clip_once_and_a_track_rather_than_a_failure(tmp_path: Path, run: Run) -> None:
    first, second, third = [track("m.mp4", 3), track("a.mp4", 1200)], [track("b.mp4", 900)], [track("z.mp4", 5)]
    relabelled = replace(first[0], clip=replace(first[0].clip, label="other"))
    a = raw_cache(tmp_path / "a.h5", sorted(first, key=lambda t: t.clip.path), ("b.mp4", "x.mp4"))
    b = raw_cache(tmp_path / "b.h5", [*second, relabelled], ("x.mp4", "y.mp4"), weights_file="/w.pth")
    c = raw_cache(tmp_path / "c.h5", third)
    ran = run(features, "merge", a, b, c, "-o", tmp_path / "new" / "u.h5")
    assert ran.code == 0
    for message in (
        "1 track in more than one cache, kept once",
        "1 failure left out: another cache has the clip's features",
        "1 clip with another label, group or split in a later cache; those of the first cache are kept (m.mp4",
        "4 tracks, 2108 rows, 2 failures",
    ):
        assert message in ran.out
    union = read_cache(tmp_path / "new" / "u.h5")
    assert union.clips.path.tolist() == ["a.mp4", "b.mp4", "m.mp4", "z.mp4"]
    expected = [first[1], second[0], first[0], third[0]]
    assert (union.features == np.concatenate([t.features for t in expected])).all()
    assert (union.times == np.concatenate([t.times for t in expected])).all()
    assert union.clips.label[2] == first[0].clip.label
    assert list(zip(union.failures.path, union.failures.reason, strict=True)) == [
        ("x.mp4", "in a"),
        ("y.mp4", "in b"),
    ]
    assert union.weights_file == "/w.pth"


def test_merge_into_an_input_or_by_force_but_never_over_another_file(tmp_path: Path, run: Run) -> None:
    a, b = raw_cache(tmp_path / "a.h5", [track("a.mp4", 3)]), raw_cache(tmp_path / "b.h5", [track("b.mp4", 3)])
    other = raw_cache(tmp_path / "other.h5", [track("o.mp4", 3)])
    before = other.read_bytes()
    ran = run(features, "merge", a, b, "-o", other)
    assert (ran.code, "--force" in ran.err, other.read_bytes() == before) == (2, True, True)
    assert run(features, "merge", a, b, "-o", a).code == 0
    assert read_cache(a).clips.path.tolist() == ["a.mp4", "b.mp4"]
    assert run(features, "merge", a, b, "-o", other, "--force").code == 0
    assert read_header(other).content_digest == read_header(a).content_digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spec": spec(reduction="none", precision="bf16")}, "precision: fp32, not bf16"),
        ({"spec": spec(reduction="none", weights_digest="b" * 64)}, "weights_digest: aaaaaaaaaaaa…, not bbbbbbbbbbbb…"),
    ],
)
def test_merge_refuses_other_features_by_field(
    tmp_path: Path, run: Run, changes: dict[str, object], message: str
) -> None:
    a = raw_cache(tmp_path / "a.h5", [track("a.mp4", 3)])
    b = raw_cache(tmp_path / "b.h5", [track("b.mp4", 3)], **changes)
    ran = run(features, "merge", a, b, "-o", tmp_path / "u.h5")
    assert (ran.code, message in ran.err, (tmp_path / "u.h5").exists()) == (4, True, False)


def test_merge_refuses_reductions_that_were_fitted_apart(tmp_path: Path, run: Run) -> None:
    a = write(tmp_path / "a.h5", [track("a.mp4", 3)])
    b = write(tmp_path / "b.h5", [track("b.mp4", 3)], spec=spec(reduction_digest="f" * 64))
    ran = run(features, "merge", a, b, "-o", tmp_path / "u.h5")
    assert ran.code == 4
    assert "reduction_digest: eeeeeeeeeeee…, not ffffffffffff…" in ran.err
    assert "--reduce none, or with --shard" in ran.err
    c = write(tmp_path / "c.h5", [track("c.mp4", 3)])
    assert run(features, "merge", a, c, "-o", tmp_path / "u.h5").code == 0
    assert read_cache(tmp_path / "u.h5").reduction is not None


def test_merge_refuses_one_path_with_two_contents(tmp_path: Path, run: Run) -> None:
    one = track("same\n.mp4", 3)
    other = replace(one, clip=replace(one.clip, digest="e" * 64))
    a, b = raw_cache(tmp_path / "a.h5", [one]), raw_cache(tmp_path / "b.h5", [other])
    ran = run(features, "merge", a, b, "-o", tmp_path / "u.h5")
    assert ran.code == 4
    assert f"'same\\n.mp4' is one video in {a} and another in {b}" in ran.err
    assert not list(tmp_path.glob("*u.h5.tmp*"))


def test_merge_of_a_damaged_cache_writes_nothing(tmp_path: Path, run: Run) -> None:
    a, b = raw_cache(tmp_path / "a.h5", [track("a.mp4", 900)]), raw_cache(tmp_path / "b.h5", [track("b.mp4", 900)])
    with h5py.File(b) as file:
        at = file["features"].id.get_chunk_info(0).byte_offset
    data = bytearray(b.read_bytes())
    data[at] ^= 1
    b.write_bytes(data)
    ran = run(features, "merge", a, b, "-o", tmp_path / "u.h5")
    assert (ran.code, f"{b} rejected" in ran.err, (tmp_path / "u.h5").exists()) == (4, True, False)


def test_shards_divide_the_clips_by_their_paths() -> None:
    paths = [f"class/{i}.mp4" for i in range(1000)]
    taken = [[path for path in paths if Shard(i, 3).contains(path)] for i in (1, 2, 3)]
    assert sorted(path for own in taken for path in own) == sorted(paths)
    assert min(map(len, taken)) > 280
    assert Shard(1, 3).contains("class/0.mp4")  # as long as the hash stays what it is


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3"])
def test_a_wrong_shard_is_a_usage_error(numbered: Path, tmp_path: Path, extract: Run, text: str) -> None:
    ran = extract(numbered, "-o", tmp_path / "c.h5", f"--shard={text}")
    assert (ran.code, f"1 <= I <= N, such as 2/4; got '{text}'" in ran.err) == (2, True)


def test_the_last_shard_builds_the_cache(made: Path, tmp_path: Path, extract: Run, run: Run) -> None:
    output, whole = tmp_path / "s.h5", read_header(made / "c.h5")
    own = sum(Shard(1, 2).contains(path) for path in [*whole.clips.path, *whole.failures.path])
    assert 0 < own < 7
    first = extract(made / "clips", "-o", output, "--shard", "1/2", *TORCH)
    has_bad = Shard(1, 2).contains("calm/bad.mp4")
    assert first.code == (3 if has_bad else 0)
    assert f"7 clips, of which shard 1/2 takes {own}: {own} to extract" in first.out
    assert f"{own} of 7 clips are done, in parts beside {output}; the last shard, or a run without" in first.out
    assert not output.exists()
    unbuilt = run(features, "inspect", output)
    assert (unbuilt.code, "of an unfinished run; run the extraction again to build it" in unbuilt.err) == (2, True)

    again = extract(made / "clips", "-o", output, "--shard", "1/2", "--dry-run")
    assert "0 to extract" in again.out
    assert f"parts of an unfinished run in {parts_folder(output)} would be added" in again.out
    second = extract(made / "clips", "-o", output, "--shard", "2/2", *TORCH)
    assert "6 clips, 72 rows" in second.out
    assert read_header(output).content_digest == whole.content_digest
    assert not parts_folder(output).exists()


def test_shards_that_end_at_the_same_moment(made: Path, tmp_path: Path) -> None:
    output = tmp_path / "s.h5"
    script = ROOT / "extract_features.py"
    command = [sys.executable, script, made / "clips", "-o", output, "--weights", "random", "--workers", "1", *TORCH]
    processes = [
        subprocess.Popen([*command, "--shard", f"{i}/2"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in (1, 2)
    ]
    message = [process.communicate(timeout=120) for process in processes]
    assert {process.returncode for process in processes} == {0, 3}, message
    assert read_header(output).content_digest == read_header(made / "c.h5").content_digest
    assert not parts_folder(output).exists()


def test_of_two_consolidations_at_once_the_second_finds_nothing_to_do(cache: Path) -> None:
    part_beside(cache, ["new.mp4"], ["bad.mp4"])
    clips = [Clip("new.mp4", Path("new.mp4"), label="a"), Clip("bad.mp4", Path("bad.mp4"))]
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(consolidate, cache, read_header(cache).spec, clips, weights_file="") for _ in range(2)]
        headers = [job.result() for job in jobs]
    assert len({header.created for header in headers if header}) == 1
    assert "new.mp4" in read_cache(cache).clips.path


def test_dry_run_says_what_would_be_done(made: Path, clips: Path, cache: Path, extract: Run) -> None:
    add(clips)
    touch(clips)
    before = cache.read_bytes()
    ran = extract(clips, "-o", cache, "--dry-run", *TORCH)
    assert ran.code == 0
    for message in (
        "8 clips: 2 to extract, 5 in the cache already",
        "1 of them in the cache, but with another file size or time",
        "1 clip failed before and will not be tried again",
        "frames     12 evenly spaced per clip",
        "reduction  select:512",
        "with torch",
        f"{cache} would be extended; this was a dry run, nothing was written",
    ):
        assert message in ran.out
    assert cache.read_bytes() == before
    assert "has all of them" in extract(made / "clips", "-o", cache, "--dry-run").out


def test_help_is_instant(run: Run) -> None:
    code = "import sys, features.__main__; sys.exit(bool({'torch', 'h5py', 'av'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert "inspect" in run(features, "--help").out
