import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from features.cache.hdf5 import Cache, read_cache, read_header, verify_cache, write_cache
from features.cache.parts import make_track_rows
from features.cache.reduction import Reduction
from features.cache.tables import make_clip_table, make_failure_table
from features.errors import ArtifactError, DamagedCacheError, SettingsError
from features.types import Clip, Failure, FeatureTrack
from tests.helpers.data.specs import spec

RNG = np.random.default_rng(0)


def track(name: str, length: int, width: int = 6) -> FeatureTrack:
    clip = Clip(
        name, Path(name), label="größe\n", group="g", split="train", digest="d" * 64, size_bytes=9, mtime_ns=2**60
    )
    return FeatureTrack(clip, RNG.normal(size=(length, width)).astype(np.float16), np.arange(length) / 3, duration=2.0)


def write(path: Path, tracks: list[FeatureTrack], **changes: object) -> Path:
    content = io.BytesIO()
    options: dict = {
        "width": 6,
        "spec": spec(reduction_digest="e" * 64),
        "reduction": Reduction("select:6", channels=np.arange(6)),
        "reduction_fitted_on": "train",
        "clips": make_clip_table(make_track_rows(tracks)),
        "failures": make_failure_table([Failure(Clip("bad.mp4", Path("bad.mp4")), "open", "empty file")]),
    }
    write_cache(content, ((t.features, t.times) for t in tracks), **(options | changes))
    path.write_bytes(content.getvalue())
    return path


@pytest.fixture
def tracks() -> list[FeatureTrack]:
    return [track("a.mp4", 3), track("b/c.mp4", 5)]


@pytest.fixture
def path(tmp_path: Path, tracks: list[FeatureTrack]) -> Path:
    return write(tmp_path / "c.h5", tracks)


def test_round_trip(path: Path, tracks: list[FeatureTrack]) -> None:
    cache = read_cache(path)
    assert isinstance(cache, Cache)
    assert cache.clips.path.tolist() == ["a.mp4", "b/c.mp4"]
    assert cache.clips.label.tolist() == ["größe\n"] * 2
    assert cache.clips.start.tolist() == [0, 3]
    assert (cache.features[3:] == tracks[1].features).all()
    assert (cache.times[:3] == tracks[0].times).all()
    assert cache.failures.reason.tolist() == ["empty file"]
    assert cache.spec == spec(reduction_digest="e" * 64)
    assert cache.reduction is not None
    assert cache.reduction.width == 6
    assert read_header(path).fingerprint == cache.fingerprint


def test_h5py_alone_reads_it(path: Path) -> None:
    with h5py.File(path) as file:
        assert file["features"].shape == (8, 6)
        assert file["clips/path"].asstr()[1] == "b/c.mp4"
        start, length = file["clips/start"][1], file["clips/length"][1]
        assert file["features"][start : start + length].dtype == np.float16


def test_content_digest_is_of_the_content_not_of_the_run(
    tmp_path: Path, path: Path, tracks: list[FeatureTrack]
) -> None:
    moved = [replace(t, clip=replace(t.clip, mtime_ns=5)) for t in tracks]
    assert read_header(write(tmp_path / "d.h5", moved)).content_digest == read_header(path).content_digest
    other = [track("a.mp4", 3), tracks[1]]
    assert read_header(write(tmp_path / "e.h5", other)).content_digest != read_header(path).content_digest


def test_a_flipped_bit_anywhere_is_refused_or_harmless(path: Path) -> None:
    data = bytearray(path.read_bytes())
    expected = read_cache(path).features
    refused = 0
    for at in np.random.default_rng(1).integers(0, len(data), 150):
        damaged = bytearray(data)
        damaged[at] ^= 1 << int(at) % 8
        path.write_bytes(damaged)
        try:
            assert (read_cache(path).features == expected).all()
        except ArtifactError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 5


@pytest.mark.parametrize("read", [read_cache, verify_cache])
@pytest.mark.parametrize("rows", [10**10, 2**62])
@pytest.mark.parametrize("name", ["features", "times", "clips/start", "clips/label", "failures/reason"])
def test_a_shape_that_the_file_cannot_hold_takes_no_memory(
    path: Path, name: str, rows: int, read: Callable[[Path], object]
) -> None:
    with h5py.File(path, "a") as file:
        file[name].resize((rows, *file[name].shape[1:]))
    with pytest.raises(DamagedCacheError, match=f"/{name} cannot be .* in a file of"):
        read(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_cache_is_refused(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ArtifactError, match="rejected"):
        read_cache(path)


def test_absent_and_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no cache at .*extract-features"):
        read_cache(tmp_path / "none.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["features"] = np.zeros(3)
    with pytest.raises(ArtifactError):
        read_cache(tmp_path / "foreign.h5")


def test_a_cache_of_another_version_is_not_called_damaged(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["spec"] = json.dumps(json.loads(file.attrs["spec"]) | {"gravity": 9.81})
    with pytest.raises(ArtifactError, match=r"another version .* differ: gravity") as caught:
        read_cache(path)
    assert not isinstance(caught.value, DamagedCacheError)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("features", np.zeros((8, 6), np.float32), "float16"),
        ("features", np.zeros((7, 6), np.float16), "expected 8 rows"),
        ("features", np.full((8, 6), np.nan, np.float16), "NaN"),
        ("times", np.zeros(9), "expected 8 rows"),
        ("clips/start", np.array([0, 4]), "follow one another"),
        ("clips/label", np.array([1, 2, 3]), "differ in length"),
    ],
)
def test_wrong_content_is_refused_with_expected_and_got(path: Path, name: str, value: np.ndarray, said: str) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = value
    with pytest.raises(ArtifactError, match=said):
        read_cache(path)


def test_not_a_number_is_refused_when_written(tmp_path: Path, tracks: list[FeatureTrack]) -> None:
    bad = np.full((3, 6), np.inf, np.float16)
    with pytest.raises(ValueError, match="NaN or infinity"):
        replace(tracks[0], features=bad)
    with pytest.raises(ValueError, match="finite"):
        write_cache(
            io.BytesIO(),
            [(bad, np.zeros(3))],
            width=6,
            spec=spec(),
            reduction=None,
            clips=make_clip_table(make_track_rows(tracks[:1])),
            failures=make_failure_table([]),
        )


def test_a_full_disk_is_an_error_not_a_crash() -> None:
    class Full(io.BytesIO):
        def write(self, data: bytes) -> int:  # type: ignore[override]
            if self.tell() + len(data) > 20_000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    tracks = [track("a.mp4", 4000)]
    with pytest.raises(OSError, match="No space left"):
        write_cache(
            Full(),
            ((t.features, t.times) for t in tracks),
            width=6,
            spec=spec(),
            reduction=None,
            clips=make_clip_table(make_track_rows(tracks)),
            failures=make_failure_table([]),
        )


def test_a_lock_on_the_file_does_not_matter(tmp_path: Path) -> None:
    """HDF5 would lock the file to read it, and fail where another program has, or where there are no locks at all."""
    fcntl = pytest.importorskip("fcntl", reason="locks that h5py would meet are those of Unix")
    path = write(tmp_path / "c.h5", [track("a.mp4", 3)])
    with open(path, "rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert len(read_header(path).clips) == len(read_cache(path).clips) == 1
