"""The user cache of networks and digests: an entry is used only for the same key, and no run depends on it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from features.backbones.loading import load_backbone, tensors_digest
from features.backbones.registry import BACKBONES
from features.backbones.weights import weights_digest
from features.encoders.openvino_cache import ENTRY_FILE, MAX_CACHED_NETWORKS, NETWORK_FILES, get_openvino_network
from features.spec import FeatureSpec, Sampling
from features.utils.user_cache import find_cache_dir

Kept = Callable[..., int]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache folder of one test."""
    monkeypatch.setenv("HAZARD_CACHE_DIR", str(tmp_path / "caches"))
    return tmp_path / "caches"


def spec(**changes: object) -> FeatureSpec:
    plain = FeatureSpec(
        sampling=Sampling(),
        preprocessing=BACKBONES["mobilenet_v2"].preprocessing,
        backbone="mobilenet_v2",
        weights="random",
        weights_digest=weights_digest("mobilenet_v2", None),
        pooling="avg",
    )
    return plain.model_copy(update=changes)


@pytest.fixture
def take(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kept:
    """`take(SPEC)` gets a network, checks it and returns how many were converted so far."""
    pytest.importorskip("openvino")
    converted = []

    def convert(asked: FeatureSpec, weights: Path | None, folder: Path) -> Path:
        converted.append(asked)
        for name in NETWORK_FILES:
            (folder / name).write_text(f"{name} {asked.fingerprint}")
        return folder / NETWORK_FILES[0]

    monkeypatch.setattr("features.encoders.openvino_convert.convert_network", convert)

    def take_it(asked: FeatureSpec, *, made_for: FeatureSpec | None = None) -> int:
        place = tmp_path / f"run {len(list(tmp_path.iterdir()))}"
        place.mkdir()
        assert get_openvino_network(asked, None, place) == place / NETWORK_FILES[0]
        assert [(place / name).read_text() for name in NETWORK_FILES] == [
            f"{name} {(made_for or asked).fingerprint}" for name in NETWORK_FILES
        ]
        return len(converted)

    return take_it


def only_entry(folder: Path) -> Path:
    (entry,) = (folder / "openvino").iterdir()
    return entry


def test_a_network_is_converted_once(take: Kept) -> None:
    assert [take(spec()), take(spec())] == [1, 1]
    assert (
        take(spec(precision="bf16", sampling=Sampling(frames=3)), made_for=spec()) == 1
    )  # these settings do not change the network


@pytest.mark.parametrize(
    "changes",
    [
        {"pooling": "max"},
        {"backbone": "resnet18"},
        {"preprocessing": BACKBONES["mobilenet_v2"].preprocessing.model_copy(update={"mean": (0.0, 0.0, 0.0)})},
        {"sampling": Sampling(kind="snippets", frames=4, fps=5.0, stride_seconds=1.0)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_network_is_another_entry(take: Kept, changes: dict[str, object]) -> None:
    assert [take(spec()), take(spec(**changes)), take(spec()), take(spec(**changes))] == [1, 2, 2, 2]


def test_other_weights_never_get_a_kept_network(take: Kept) -> None:
    """A network is not cached if its weights do not match, or no longer match, the digest of the spec."""
    other, unnamed = spec(weights_digest="a" * 64), spec(weights_digest="")
    assert [take(spec()), take(other), take(other), take(unnamed), take(unnamed)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "harm",
    [
        lambda entry: (entry / NETWORK_FILES[0]).write_text("xml"),
        lambda entry: (entry / NETWORK_FILES[1]).write_bytes(b""),
        lambda entry: (entry / NETWORK_FILES[1]).unlink(),
        lambda entry: (entry / ENTRY_FILE).write_text("{"),
        lambda entry: (entry / ENTRY_FILE).write_text("[]"),
        lambda entry: (entry / ENTRY_FILE).write_text((entry / ENTRY_FILE).read_text().replace("avg", "max")),
        lambda entry: (entry / ENTRY_FILE).unlink(),
    ],
    ids=["other xml", "empty bin", "no bin", "no json", "other json", "other key", "no entry"],
)
def test_a_damaged_entry_is_made_anew(take: Kept, folder: Path, harm: Callable[[Path], object]) -> None:
    take(spec())
    harm(only_entry(folder))
    assert [take(spec()), take(spec())] == [2, 2]


def test_the_last_used_ones_are_kept(take: Kept, folder: Path) -> None:
    pictures = BACKBONES["mobilenet_v2"].preprocessing
    specs = [spec(preprocessing=pictures.model_copy(update={"size": 64 + i})) for i in range(MAX_CACHED_NETWORKS + 1)]
    for age, one in enumerate(specs[:MAX_CACHED_NETWORKS]):
        take(one)
        newest = max((folder / "openvino").iterdir(), key=lambda entry: entry.stat().st_mtime)
        os.utime(newest, (age, age))
    take(specs[0])  # used again
    assert take(specs[MAX_CACHED_NETWORKS]) == MAX_CACHED_NETWORKS + 1
    assert len(list((folder / "openvino").iterdir())) == MAX_CACHED_NETWORKS
    assert [take(specs[0]), take(specs[1])] == [MAX_CACHED_NETWORKS + 1, MAX_CACHED_NETWORKS + 2]


@pytest.mark.parametrize("place", ["/proc/nowhere", "a file"])
def test_a_folder_that_cannot_be_written_is_done_without(
    take: Kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "a file").touch()
    monkeypatch.setenv("HAZARD_CACHE_DIR", str(tmp_path / place))
    assert [take(spec()), take(spec())] == [1, 2]
    file = weights(tmp_path / "w.safetensors", 0)
    assert weights_digest("mobilenet_v2", file) == tensors_digest("mobilenet_v2", file)


def test_where_it_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert find_cache_dir("k") == tmp_path / "caches/k"
    monkeypatch.delenv("HAZARD_CACHE_DIR")
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert find_cache_dir("k") == Path("/home/someone/.cache/hazard-video/k")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache/someone")
    assert find_cache_dir("k") == Path("/var/cache/someone/hazard-video/k")


def weights(file: Path, seed: int) -> Path:
    """Write a state dict of mobilenet_v2 whose size does not depend on the seed."""
    state = load_backbone("mobilenet_v2", None).state_dict()
    state["0.0.weight"] = torch.full_like(state["0.0.weight"], float(seed))
    save_file(state, file)
    return file


def test_weights_that_did_not_change_are_not_read_again(tmp_path: Path, folder: Path) -> None:
    file = weights(tmp_path / "w.safetensors", 0)
    digest = weights_digest("mobilenet_v2", file)
    assert digest == tensors_digest("mobilenet_v2", file)
    again = (
        "import sys; from pathlib import Path; from features.backbones.weights import weights_digest; "
        f"print(weights_digest('mobilenet_v2', Path({str(file)!r})), 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", again], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == [digest, "False"]


def test_weights_that_changed_are_read_again(tmp_path: Path) -> None:
    """This holds even if the new file has the name, size and times of the old one."""
    file = weights(tmp_path / "w.safetensors", 0)
    before, status = weights_digest("mobilenet_v2", file), file.stat()
    weights(tmp_path / "new.safetensors", 1).replace(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert weights_digest("mobilenet_v2", file) == tensors_digest("mobilenet_v2", file) != before
    assert weights_digest("mobilenet_v2", file) == tensors_digest("mobilenet_v2", file)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"key": 1, "value": 2, "sha256": 3}'])
def test_a_damaged_note_is_made_anew(tmp_path: Path, folder: Path, content: str) -> None:
    file = weights(tmp_path / "w.safetensors", 0)
    digest = weights_digest("mobilenet_v2", file)
    (note,) = (folder / "digests").iterdir()
    good = note.read_text()
    for bad in (content, good.replace(digest, "b" * 64)):
        note.write_text(bad)
        assert weights_digest("mobilenet_v2", file) == digest
        assert note.read_text() == good


def test_random_weights_are_named_by_the_torch_that_draws_them() -> None:
    assert weights_digest("mobilenet_v2", None) == f"random, seed 0, torch {torch.__version__.split('+')[0]}"
