"""Import, export and reduction of caches through the command line."""

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from features.cache.exchange.export import make_safe_names
from features.cache.hdf5 import Cache, read_cache, read_header
from features.cache.parts import parts_folder
from features.cli.manage import features
from features.types import FeatureTrack
from hazard.cli.infer import infer
from hazard.cli.train import train_temporal
from tests.conftest import Run
from tests.features.cache.test_hdf5 import track, write

RNG = np.random.default_rng(0)
WIDTH = 8


def array(rows: int = 5, width: int = WIDTH) -> np.ndarray:
    return RNG.normal(size=(rows, width)).astype(np.float32)


def save(file: Path, rows: np.ndarray | None = None) -> np.ndarray:
    rows = array() if rows is None else rows
    file.parent.mkdir(parents=True, exist_ok=True)
    np.save(file, rows)
    return rows


def save_new_mat(file: Path, rows: np.ndarray, name: str = "feat") -> None:
    """Write a file as MATLAB's `save -v7.3` does: axes reversed, array class in an attribute, a header of 512 bytes."""
    with h5py.File(file, "w", userblock_size=512) as h5:
        h5.create_dataset(name, data=rows.T).attrs["MATLAB_class"] = np.bytes_("single")
        h5.create_dataset("fps", data=[[25.0]]).attrs["MATLAB_class"] = np.bytes_("double")
        h5.create_group("#refs#")


def rows_of(cache: Cache, path: str) -> np.ndarray:
    i = cache.clips.path.tolist().index(path)
    return cache.features[cache.clips.start[i] :][: cache.clips.length[i]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two class folders of three files each."""
    for label in ("calm", "wild"):
        for i in range(3):
            save(tmp_path / "made" / label / f"{i}.npy", array(3 + i))
    return tmp_path / "made"


WRITERS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "half.npy": lambda file, x: np.save(file, x.astype(np.float16)),
    "double.npy": lambda file, x: np.save(file, x.astype(np.float64)),
    "fortran.npy": lambda file, x: np.save(file, np.asfortranarray(x)),
    "UPPER.NPY": lambda file, x: file.write_bytes(_npy_bytes(x)),
    "one.npz": lambda file, x: np.savez(file, x),
    "squeezed.npz": lambda file, x: np.savez_compressed(file, feat=x, times=np.arange(len(x)), video=np.array("a")),
    "old.mat": lambda file, x: scipy.io.savemat(file, {"feat": x, "fps": 25.0, "video": "a"}, do_compression=True),
    "fourth.mat": lambda file, x: scipy.io.savemat(file, {"feat": x}, format="4"),
    "new.mat": save_new_mat,
}


def _npy_bytes(x: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, x)
    return content.getvalue()


def test_every_kind_of_file_becomes_rows(tmp_path: Path, run: Run) -> None:
    (tmp_path / "f" / "a").mkdir(parents=True)
    made = {name: array(4 + i) for i, name in enumerate(WRITERS)}
    for name, writer in WRITERS.items():
        writer(tmp_path / "f" / "a" / name, made[name])
    ran = run(features, "import", tmp_path / "f", "-o", tmp_path / "c.h5", "--name", "vgg", "--fps", "2")
    assert (ran.code, ran.out.splitlines()[0]) == (0, "9 files: 9 to import, 0 in the cache already; 8 numbers a row")
    cache = read_cache(tmp_path / "c.h5")
    for name, x in made.items():
        assert (rows_of(cache, f"a/{name}") == x.astype(np.float16)).all(), name
    assert set(cache.clips.label.tolist()) == {"a"}
    assert cache.times[: cache.clips.length[0]].tolist() == [0.25 + 0.5 * i for i in range(cache.clips.length[0])]
    assert (cache.clips.duration == cache.clips.length / 2).all()
    assert (cache.spec.weights, cache.spec.backbone) == ("imported", "imported:vgg")
    assert not parts_folder(tmp_path / "c.h5").exists()


def test_key_and_transpose(tmp_path: Path, run: Run) -> None:
    x = array()
    (tmp_path / "f").mkdir()
    np.savez(tmp_path / "f" / "a.npz", rgb=x.T, flow=array().T)
    scipy.io.savemat(tmp_path / "f" / "b.mat", {"rgb": x.T, "flow": x.T})
    save_new_mat(tmp_path / "f" / "c.mat", x.T, "rgb")
    ran = run(features, "import", tmp_path / "f", "-o", tmp_path / "c.h5", "--key", "rgb", "--transpose")
    assert ran.code == 0
    cache = read_cache(tmp_path / "c.h5")
    assert (cache.features == np.concatenate([x.astype(np.float16)] * 3)).all()
    assert "array rgb" in run(features, "inspect", tmp_path / "c.h5").out
    ran = run(features, "import", tmp_path / "f", "-o", tmp_path / "d.h5", "--transpose")
    assert (ran.code, "several 2-D arrays (rgb 8 x 5 float32, flow 8 x 5 float32); choose one" in ran.out) == (3, True)


class Trap:
    def __reduce__(self) -> tuple:
        return os.mkdir, (os.environ["TRAP"],)


def _object(file: Path) -> None:
    np.save(file, np.array([[Trap()]], object), allow_pickle=True)


def _cut(file: Path) -> None:
    file.write_bytes(_npy_bytes(array())[:-9])


def _with(value: float) -> Callable[[Path], object]:
    def make(file: Path) -> None:
        x = array().astype(np.float64)
        x[2, 3] = value
        np.save(file, x)

    return make


def _late_times(file: Path) -> None:
    save(file)
    np.save(file.with_suffix(".times.npy"), np.arange(4.0))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty.npy": (Path.touch, "empty file"),
    "flat.npy": (lambda f: np.save(f, np.zeros(8)), "array 8 float64: 1-D, expected 2-D (rows, features)"),
    "deep.npy": (lambda f: np.save(f, np.zeros((2, 3, 8))), "array 2 x 3 x 8 float64: 3-D, expected 2-D"),
    "wide.npy": (lambda f: np.save(f, array(5, 9)), "array 5 x 9 float32: expected 8 numbers a row, got 9"),
    "turned.npy": (lambda f: np.save(f, array(5).T), "expected 8 numbers a row, got 5 (it has 8 if transposed)"),
    "rowless.npy": (lambda f: np.save(f, np.zeros((0, 8))), "array 0 x 8 float64: the array is empty"),
    "nan.npy": (_with(np.nan), "NaN in row 2, column 3"),
    "infinite.npy": (_with(-np.inf), "infinity in row 2, column 3"),
    "large.npy": (_with(7e4), "70000 in row 2, column 3 is beyond float16's range (65504); scale the features"),
    "small.npy": (lambda f: np.save(f, array().astype(np.float64) * 1e-9), "too small for float16; scale"),
    "complex.npy": (lambda f: np.save(f, array() * 1j), "complex64: expected float16, float32 or float64"),
    "text.npy": (lambda f: np.save(f, np.array([["a"]])), "<U1: expected float16"),
    "object.npy": (_object, "object: pickled Python objects are never read"),
    "object.npz": (lambda f: np.savez(f, x=np.array([[Trap()]], object)), "pickled Python objects are never read"),
    "cut.npy": (_cut, "not a readable .npy file"),
    "foreign.npy": (lambda f: f.write_bytes(b"no array"), "not a readable .npy file"),
    "foreign.npz": (lambda f: f.write_bytes(b"no archive"), "not a readable .npz file"),
    "foreign.mat": (lambda f: f.write_bytes(b"no matrix" * 20), "not a readable .mat file"),
    "nothing.npz": (lambda f: np.savez(f), "no 2-D array of numbers; the file holds nothing"),
    "words.mat": (lambda f: scipy.io.savemat(f, {"a": "x", "b": {"c": 1}}), "no 2-D array of numbers; the file holds"),
    "late.npy": (_late_times, "late.times.npy holds float64 (4,), expected 5 times in seconds"),
}


def test_bad_files_are_entries_of_the_ledger(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAP", str(folder / "sprung"))
    for i in range(20):
        save(folder / "calm" / f"good{i}.npy")
    for name, (make, _) in BAD.items():
        make(folder / "wild" / name)
    output = folder.parent / "c.h5"
    ran = run(features, "import", folder, "-o", output)
    assert (ran.code, f"26 imported, 0 kept, {len(BAD)} failed" in ran.out) == (3, True)
    assert "wild/complex.npy" in ran.out
    table = read_header(output).failures
    met = {path: (stage, reason) for path, stage, reason in zip(table.path, table.stage, table.reason, strict=True)}
    for name, (_, reason) in BAD.items():
        assert met[f"wild/{name}"][0] == "import"
        assert reason in met[f"wild/{name}"][1], name
    assert not (folder / "sprung").exists()
    assert run(features, "verify", output, folder).code == 3


def test_running_again_imports_what_is_new_changed_or_mended(folder: Path, run: Run) -> None:
    output = folder.parent / "c.h5"
    save(folder / "calm" / "bad.npy", np.zeros(3))
    assert run(features, "import", folder, "-o", output).code == 3
    assert "0 imported, 6 kept, 1 failed" in run(features, "import", folder, "-o", output).out
    before = read_cache(output)
    mended, changed = save(folder / "calm" / "bad.npy"), save(folder / "wild" / "0.npy", array(9))
    save(folder / "wild" / "new.npy")
    os.utime(folder / "calm" / "0.npy")
    verdict = json.loads(run(features, "verify", output, folder, "--json").out)
    assert [finding["path"] for finding in verdict["stale"]] == ["calm/bad.npy", "wild/0.npy"]
    assert [finding["path"] for finding in verdict["missing"]] == ["wild/new.npy"]
    ran = run(features, "import", folder, "-o", output)
    assert (ran.code, "3 imported, 5 kept, 0 failed" in ran.out) == (0, True)
    cache = read_cache(output)
    assert (rows_of(cache, "calm/bad.npy") == mended.astype(np.float16)).all()
    assert (rows_of(cache, "wild/0.npy") == changed.astype(np.float16)).all()
    assert (rows_of(cache, "wild/1.npy") == rows_of(before, "wild/1.npy")).all()
    assert run(features, "verify", output, folder).code == 0


@pytest.mark.parametrize("options", [("--name", "other"), ("--fps", "5"), ("--reduce", "select:4"), ("--width", "9")])
def test_other_settings_are_refused(folder: Path, run: Run, options: tuple[str, ...]) -> None:
    output = folder.parent / "c.h5"
    run(features, "import", folder, "-o", output)
    content = output.read_bytes()
    ran = run(features, "import", folder, "-o", output, *options)
    assert (ran.code, "was made with other settings" in ran.err, output.read_bytes()) == (4, True, content)


def test_what_cannot_be_decided_is_a_usage_error(tmp_path: Path, run: Run) -> None:
    for i in range(4):
        save(tmp_path / "f" / f"{i}.npy", array(3 + i, 8).T)
    ran = run(features, "import", tmp_path / "f", "-o", tmp_path / "c.h5")
    assert (ran.code, "use --transpose if each has 8 features a row, or set the width with --width" in ran.err) == (
        2,
        True,
    )
    ran = run(features, "import", tmp_path / "f", "-o", tmp_path / "c.h5", "--width", "99")
    assert (ran.code, "nothing could be imported" in ran.out, (tmp_path / "c.h5").exists()) == (3, True, False)
    assert run(features, "import", tmp_path / "f", "-o", tmp_path / "c.h5", "--transpose").code == 0
    ran = run(features, "import", tmp_path / "f", "-o", tmp_path / "d.h5", "--transpose", "--reduce", "select:9")
    assert (ran.code, "from 1 to 8" in ran.err) == (2, True)
    (tmp_path / "none").mkdir()
    ran = run(features, "import", tmp_path / "none", "-o", tmp_path / "d.h5")
    assert (ran.code, "looked for .mat .npy .npz" in ran.err) == (2, True)


def manifest(folder: Path, lines: list[str]) -> Path:
    (folder / "m.csv").write_text("\n".join(["path,label,group,split,duration", *lines, ""]))
    return folder / "m.csv"


def test_a_manifest_names_labels_groups_splits_and_durations(folder: Path, run: Run) -> None:
    lines = ["calm/0.npy,a,g1,train,9.5", "calm/1.npy,b,g2,test,", "absent.npy,b,,,", "calm/2.mp4,a,,,"]
    (folder / "calm" / "2.mp4").write_bytes(b"x")
    output = folder.parent / "c.h5"
    ran = run(features, "import", manifest(folder, lines), "-o", output)
    assert (ran.code, "failed absent.npy: no such file or directory" in ran.out) == (3, True)
    assert "failed calm/2.mp4: file type '.mp4' is not supported; expected .mat, .npy, .npz" in ran.out
    table = read_header(output).clips
    assert [table.label.tolist(), table.group.tolist(), table.split.tolist()] == [
        ["a", "b"],
        ["g1", "g2"],
        ["train", "test"],
    ]
    assert table.duration.tolist() == [9.5, 4.0]
    ran = run(features, "import", manifest(folder, ["calm/0.npy,a,g1,train,soon"]), "-o", output)
    assert (ran.code, "row 2, column 'duration': 'soon'" in ran.err) == (2, True)


def test_the_reduction_is_fitted_on_training_rows_and_reduce_gives_the_same(folder: Path, run: Run) -> None:
    lines = [f"{p.relative_to(folder)},{p.parent.name},,{'train' if p.stem != '2' else 'val'},"
             for p in sorted(folder.rglob("*.npy"))]  # fmt: skip
    source, here = manifest(folder, lines), folder.parent
    for name, options in (("raw.h5", ()), ("small.h5", ("--reduce", "pca:3"))):
        assert run(features, "import", source, "-o", here / name, *options).code == 0
    ran = run(features, "reduce", here / "raw.h5", "-o", here / "same.h5", "--reduce", "pca:3")
    assert (ran.code, "pca:3, fitted on the training split" in ran.out, "8 before" in ran.out) == (0, True, True)
    small, same = read_cache(here / "small.h5"), read_cache(here / "same.h5")
    assert small.content_digest == same.content_digest
    assert same.reduction_fitted_on == "train"


def test_reduce_gives_what_extraction_gives(numbered: Path, tmp_path: Path, extract: Run, run: Run) -> None:
    common = ("--limit", "3", "--frames", "2")
    assert extract(numbered, "-o", tmp_path / "raw.h5", "--reduce", "none", *common).code == 0
    assert extract(numbered, "-o", tmp_path / "small.h5", "--reduce", "select:64", *common).code == 0
    assert run(features, "reduce", tmp_path / "raw.h5", "-o", tmp_path / "s.h5", "--reduce", "select:64").code == 0
    assert read_header(tmp_path / "s.h5").content_digest == read_header(tmp_path / "small.h5").content_digest
    assert run(features, "merge", tmp_path / "s.h5", tmp_path / "small.h5", "-o", tmp_path / "m.h5").code == 0


def test_reduce_refuses(folder: Path, run: Run) -> None:
    raw, small = folder.parent / "raw.h5", folder.parent / "small.h5"
    run(features, "import", folder, "-o", raw)
    assert run(features, "reduce", raw, "-o", small, "--reduce", "select:4").code == 0
    content = raw.read_bytes()
    for code, said, arguments in (
        (4, "already reduced (select:4)", (small, "-o", folder.parent / "x.h5", "--reduce", "select:2")),
        (2, "use --force to replace it", (raw, "-o", small, "--reduce", "select:2")),
        (2, "is the input cache", (raw, "-o", raw, "--reduce", "select:2", "--force")),
        (2, "from 1 to 8", (raw, "-o", folder.parent / "x.h5", "--reduce", "select:9")),
        (2, "would change nothing", (raw, "-o", folder.parent / "x.h5", "--reduce", "none")),
        (2, "no cache at", (folder / "absent.h5", "-o", folder.parent / "x.h5", "--reduce", "none")),
    ):
        ran = run(features, "reduce", *arguments)
        assert (ran.code, said in ran.err) == (code, True), ran.err
    assert run(features, "reduce", raw, "-o", small, "--reduce", "select:2", "--force").code == 0
    assert (raw.read_bytes(), (folder.parent / "x.h5").exists()) == (content, False)
    with h5py.File(raw, "r+") as h5:
        h5["times"][0] = 7.0
    ran = run(features, "reduce", raw, "-o", folder.parent / "x.h5", "--reduce", "select:4")
    assert (ran.code, "damaged" in ran.err or "does not match" in ran.err) == (4, True)


def test_a_reduction_that_leaves_float16_says_so(tmp_path: Path, run: Run) -> None:
    for i in range(3):
        save(tmp_path / "f" / f"{i}.npy", np.full((4, 64), 6e4, np.float32))
    ran = run(features, "import", tmp_path / "f", "-o", tmp_path / "c.h5", "--reduce", "random:8")
    assert (ran.code, "beyond float16's range" in ran.err, "scale the features" in ran.err) == (2, True, True)


def test_imported_features_train_and_no_video_is_put_through(numbered: Path, tmp_path: Path, run: Run) -> None:
    mark = RNG.normal(size=4096).astype(np.float32)
    for i in range(24):
        label, sign = (("calm", -1), ("wild", 1))[i % 2]
        (tmp_path / "f" / label).mkdir(parents=True, exist_ok=True)
        rows = sign * mark + RNG.normal(size=(25, 4096)).astype(np.float32)
        scipy.io.savemat(tmp_path / "f" / label / f"{i}.mat", {"feat": rows})
    output, model = tmp_path / "c.h5", tmp_path / "run"
    assert run(features, "import", tmp_path / "f", "-o", output, "--name", "vgg16").code == 0
    ran = run(train_temporal, output, "-o", model, "--baseline", "logistic_regression")
    assert ran.code == 0
    assert json.loads((model / "metrics.json").read_text())["accuracy"]["value"] == 1.0
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_bytes(b"no video: it would be a failed clip if it were opened")
    ran = run(infer, tmp_path / "bad", "--model", model, "-o", tmp_path / "report")
    assert (ran.code, "features of another program (imported:vgg16)" in ran.err) == (4, True)
    assert not (tmp_path / "report" / "predictions.csv").exists()


def test_videos_and_imports_do_not_mix(numbered: Path, folder: Path, extract: Run, run: Run) -> None:
    imported, extracted = folder.parent / "i.h5", folder.parent / "e.h5"
    run(features, "import", folder, "-o", imported)
    content = imported.read_bytes()
    ran = extract(numbered, "-o", imported)
    assert (ran.code, "features of another program (imported:features)" in ran.err) == (4, True)
    assert imported.read_bytes() == content
    extract(numbered, "-o", extracted, "--limit", "1", "--frames", "1")
    ran = run(features, "import", folder, "-o", extracted)
    assert (ran.code, "extracted from videos" in ran.err) == (4, True)


def test_inspect_and_merge_of_imports(folder: Path, run: Run) -> None:
    here = folder.parent
    run(features, "import", folder / "calm", "-o", here / "a.h5", "--name", "clip vit")
    run(features, "import", folder / "wild", "-o", here / "b.h5", "--name", "clip vit")
    ran = run(features, "inspect", here / "a.h5")
    assert "features     imported:clip vit (8 numbers a row)" in ran.out
    assert not any(word in ran.out for word in ("resizing", "pooling", "pretrained"))
    assert json.loads(run(features, "inspect", here / "a.h5", "--json").out)["spec"]["weights"] == "imported"
    shutil.move(folder / "wild", folder / "other")
    run(features, "import", folder, "-o", here / "c.h5", "--name", "clip vit")
    ran = run(features, "merge", here / "a.h5", here / "c.h5", "-o", here / "m.h5")
    assert (ran.code, "9 tracks" in ran.out) == (0, True)
    run(features, "import", folder, "-o", here / "d.h5", "--name", "vgg")
    ran = run(features, "merge", here / "a.h5", here / "d.h5", "-o", here / "m2.h5")
    assert (ran.code, "backbone: imported:clip vit, not imported:vgg" in ran.err) == (4, True)


def hostile(name: str, length: int, group: str) -> FeatureTrack:
    made = track(name, length)
    clip = replace(made.clip, label="größe", group=group)
    return replace(made, clip=clip, times=np.sort(RNG.random(length)), duration=1 / 3 + length)


NAMES = ["../../up.mp4", "/etc/x.mp4", "a/b.mp4", "a/B.mp4", "a/b.mp4.npy", "a/./b.mp4", "d.npy/e", "d", ".hidden/.f"]
NAMES += ["long" * 80 + ".mp4", 'a\nb,"c".mp4', "v.mp4#t=1,2.5", "größe/ü.mp4", "C:\\x\\y.mp4", "d.times"]


def test_export_is_safe_and_reads_back_to_the_same(tmp_path: Path, run: Run) -> None:
    tracks = sorted((hostile(name, 2 + i, group=f"g{i}") for i, name in enumerate(NAMES)), key=lambda t: t.clip.path)
    write(tmp_path / "c.h5", tracks)
    out = tmp_path / "deep" / "er" / "out"
    ran = run(features, "export", tmp_path / "c.h5", "-o", out)
    assert (ran.code, "15 tracks" in ran.out, "1 failed clip left out" in ran.out) == (0, True, True)
    assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file() and out not in p.parents) == ["c.h5"]
    assert len(list(out.rglob("*.npy"))) == 2 * len(NAMES)
    assert run(features, "import", out / "manifest.csv", "-o", tmp_path / "back.h5").code == 0
    with open(out / "manifest.csv", newline="", encoding="utf-8") as file:
        names = [row["path"] for row in csv.DictReader(file)]
    before, after = read_cache(tmp_path / "c.h5"), read_cache(tmp_path / "back.h5")
    order = [after.clips.path.tolist().index(name) for name in names]
    for column in ("label", "group", "split", "duration", "length"):
        assert (getattr(before.clips, column) == getattr(after.clips, column)[order]).all(), column
    rows = np.concatenate(
        [np.arange(after.clips.start[i], after.clips.start[i] + after.clips.length[i]) for i in order]
    )
    assert (before.features == after.features[rows]).all()
    assert (before.times == after.times[rows]).all()


def test_names_of_files_never_meet() -> None:
    names = make_safe_names(NAMES, [".npy", ".times.npy"])
    files = [f"{name}{suffix}".casefold() for name in names.values() for suffix in (".npy", ".times.npy")]
    assert len(set(files)) == 2 * len(NAMES)
    for name in names.values():
        assert not name.startswith("/")
        assert not {"..", ".", ""} & set(name.split("/"))
        assert all(len(part.encode()) < 240 and not part.startswith(".") for part in name.split("/"))


def test_export_of_a_folder_that_holds_files(folder: Path, run: Run) -> None:
    output, out = folder.parent / "c.h5", folder.parent / "out"
    run(features, "import", folder, "-o", output)
    assert run(features, "export", output, "-o", out).code == 0
    (out / "mine.txt").write_text("kept")
    ran = run(features, "export", output, "-o", out)
    assert (ran.code, "is not empty; use --force" in ran.err) == (2, True)
    assert run(features, "export", output, "-o", out, "--force").code == 0
    assert (out / "mine.txt").read_text() == "kept"
    assert run(features, "export", output, "-o", output).code == 2
    assert (np.load(out / "calm" / "0.npy") == rows_of(read_cache(output), "calm/0.npy")).all()
    assert run(features, "import", out, "-o", folder.parent / "again.h5").code == 0
    assert (read_cache(folder.parent / "again.h5").features == read_cache(output).features).all()


@pytest.mark.parametrize("precision", ["float16", "float32"])
def test_parquet_has_a_row_a_frame(tmp_path: Path, run: Run, precision: str) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    plain = [track("a.mp4", 3), track("b.mp4", 4)]
    tracks = [plain[0], FeatureTrack(plain[0].clip, plain[0].features, plain[0].times, 2.0, view="flip"), plain[1]]
    path = write(tmp_path / "c.h5", tracks)
    ran = run(features, "export", path, "-o", tmp_path / "out", "--format", "parquet", "--precision", precision)
    assert ran.code == 0
    table = parquet.read_table(tmp_path / "out" / "features.parquet")
    kind = table.schema.field("features").type
    assert (kind.list_size, kind.value_type.to_pandas_dtype()) == (6, np.dtype(precision).type)
    assert table.column("path").to_pylist() == ["a.mp4"] * 6 + ["b.mp4"] * 4
    assert table.column("view").to_pylist() == ["none"] * 3 + ["flip"] * 3 + ["none"] * 4
    cache = read_cache(path)
    assert (np.array(table.column("features").to_pylist(), np.float16) == cache.features).all()
    assert table.column("time").to_pylist() == cache.times.tolist()
    assert json.loads(table.schema.metadata[b"spec"])["backbone"] == "mobilenet_v2"
    ran = run(features, "export", path, "-o", tmp_path / "npy")
    assert "3 tracks" not in ran.out
    assert "1 track of augmentation views left out" in ran.out


def test_parquet_without_pyarrow_says_how_to_get_it(folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(features, "import", folder, "-o", folder.parent / "c.h5")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    ran = run(features, "export", folder.parent / "c.h5", "-o", folder.parent / "out", "--format", "parquet")
    assert (ran.code, "pip install pyarrow" in ran.err) == (2, True)
