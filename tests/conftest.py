"""Fixtures for all tests: small clips, a model trained on synthetic clips, and commands run as a user runs them."""

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.paths import SHARED

if "PYTEST_XDIST_WORKER" in os.environ:  # one test process per core: more threads would only wait for each other
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import click
import pytest

from features.cli.extract import extract_features
from features.utils.command_line import run_command
from features.utils.worker_pool import make_worker_context
from tests.helpers.data.videos import write_numbered
from tests.helpers.servers.web import Site, run_site

PRELOAD = (
    "features.extraction.jobs",
    "features.encoders.torch_encoder",
    "torchvision.models",
    "features.live.reader",
    "hazard.alerts.channels",
    "hazard.web.engine.worker",
)
"""Modules that the workers of all tests need; their imports take seconds. OpenVINO must not be loaded before a fork."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the tests that fork this process hundreds of times first. Later it holds gigabytes and forks are slow."""
    items.sort(key=lambda item: "test_kills.py" not in item.nodeid)


def pytest_collection_finish() -> None:
    """Freeze all objects that exist now, so that the garbage collector does not scan them again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Unfreeze the objects, because some libraries complain about objects that are left at exit."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _one_fork_server(_own_caches: None) -> None:
    """Start the process's only fork server with these imports, before a test starts one with other imports."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FEATURES_WEIGHTS", raising=False)
        make_worker_context(PRELOAD)


@pytest.fixture(scope="module", autouse=True)
def _memory_given_back() -> Iterator[None]:
    """Return freed memory to the system. The C library would keep more than a gigabyte after large tests."""
    yield
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="module", autouse=True)
def _no_priority() -> Iterator[None]:
    """Check that no library gave this process real-time priority, which would starve all other tests."""
    yield
    if sys.platform == "linux":
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the tests away from the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAZARD_CACHE_DIR", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a model on synthetic clips with random weights and return its folder. Many tests share it."""
    return make_model(tmp_path_factory.mktemp("small"), clips_per_class=6)


def make_model(folder: Path, *, clips_per_class: int) -> Path:
    """Train a model on synthetic clips with random weights inside `folder` and return the model's folder."""
    from hazard.cli.train import train_temporal
    from hazard.synthetic.clips import draw_dataset

    draw_dataset(
        folder, classes={"normal": ["walk"], "hazardous": ["fight"]}, clips_per_class=clips_per_class, scenes=3
    )
    arguments: list[object] = [folder / "manifest.csv", "-o", folder / "c.h5", "--weights", "random", "--frames", 4]
    arguments += ["--runtime", "torch"]
    assert extract_features.main([str(a) for a in arguments], standalone_mode=False) == 0
    arguments = [folder / "c.h5", "-o", folder / "model", "--baseline", "ridge"]
    assert train_temporal.main([str(a) for a in arguments], standalone_mode=False) == 0
    return folder / "model"


@pytest.fixture(autouse=True)
def _no_weights_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEATURES_WEIGHTS", raising=False)


@dataclass(frozen=True)
class CommandResult:
    code: int
    out: str
    err: str


Run = Callable[..., CommandResult]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a click command with arguments as a program would; return its exit code and output."""

    def run_it(command: click.Command, *arguments: object) -> CommandResult:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(command, [str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return CommandResult(int(ended.value.code or 0), captured.out, captured.err)

    return run_it


@pytest.fixture
def extract(run: Run) -> Run:
    """Run `extract SOURCE... -o OUTPUT` with one worker, and with random weights unless --weights is given."""

    def extract_it(*arguments: object) -> CommandResult:
        defaults: Sequence[object] = () if "--weights" in arguments else ("--weights", "random")
        return run(extract_features, *arguments, *defaults, "--workers", "1", "--runtime", "torch")

    return extract_it


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make two class folders with three short clips each."""
    root = tmp_path_factory.mktemp("numbered")
    for label, gop in (("calm", 12), ("wild", 5)):
        (root / label).mkdir()
        for i in range(3):
            write_numbered(root / label / f"{i}.mp4", 20 + 5 * i, gop=gop)
    return root


@pytest.fixture(scope="session")
def real_clips() -> Path:
    manifest = SHARED / "data" / "fight" / "manifest.csv"
    if not manifest.is_file():
        pytest.skip("needs the real clips: shared/data/fight/manifest.csv does not exist beside the project")
    return manifest


@pytest.fixture(scope="session")
def real_weights() -> Path:
    folder = Path(os.environ.get("REAL_WEIGHTS", SHARED / "weights"))
    if not any(folder.glob("mobilenet_v2*")):
        pytest.skip(f"needs the real weights: {folder} has no mobilenet_v2 file")
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of a small video file."""
    return write_numbered(tmp_path_factory.mktemp("video") / "a.mp4", 12).read_bytes()


@pytest.fixture
def site() -> Iterator[Site]:
    """Start a web server on this machine."""
    with run_site() as site:
        yield site
