"""What the tests share: small clips, a cache of them, and commands run as a user would."""

import ctypes
import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.paths import SHARED

if "PYTEST_XDIST_WORKER" in os.environ:  # as many of us as cores: threads of each would only wait for one another
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import click
import pytest

from features.cli.extract import extract_features
from features.utils.command_line import run_command
from features.utils.worker_pool import make_worker_context
from tests.helpers.data.videos import write_numbered
from tests.helpers.servers.web import Site, serving

PRELOAD = (
    "features.extraction.jobs",
    "features.encoders.torch_encoder",
    "torchvision.models",
    "features.live.reader",
    "hazard.alerts.channels",
    "hazard.web.engine.worker",
)
"""What the workers of all tests need, seconds of imports; not OpenVINO, which may not be there when a process forks."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What forks this process hundreds of times comes first: later it holds gigabytes, and each fork takes its time."""
    items.sort(key=lambda item: "test_kills.py" not in item.nodeid)


def pytest_collection_finish() -> None:
    """What is imported by now stays: the garbage collector need not look at it after every few tests."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Some libraries complain of what is left at the end."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _one_fork_server(_own_caches: None) -> None:
    """A process has one fork server, and whoever starts it decides what it imports: not the test that runs first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("FEATURES_WEIGHTS", raising=False)
        make_worker_context(PRELOAD)


@pytest.fixture(scope="module", autouse=True)
def _memory_given_back() -> Iterator[None]:
    """The C library keeps what large tests freed, a gigabyte and more, unless it is told."""
    yield
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


@pytest.fixture(scope="module", autouse=True)
def _no_priority() -> Iterator[None]:
    """A library that gives this process real-time priority starves every other test, which then fails."""
    yield
    if sys.platform == "linux":
        assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.fixture(scope="session", autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing is left in the user's folder of caches, nor taken from there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HAZARD_CACHE_DIR", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of drawn clips and random weights, which many tests watch and serve with."""
    return make_model(tmp_path_factory.mktemp("small"), clips_per_class=6)


def make_model(folder: Path, *, clips_per_class: int) -> Path:
    """The folder of a model of drawn clips and random weights, made in a folder."""
    from hazard.cli.train import train_temporal
    from hazard.synthetic.clips import draw_dataset

    draw_dataset(
        folder, classes={"normal": ["walk"], "hazardous": ["fight"]}, clips_per_class=clips_per_class, scenes=3
    )
    given: list[object] = [folder / "manifest.csv", "-o", folder / "c.h5", "--weights", "random", "--frames", 4]
    given += ["--runtime", "torch"]
    assert extract_features.main([str(a) for a in given], standalone_mode=False) == 0
    given = [folder / "c.h5", "-o", folder / "model", "--baseline", "ridge"]
    assert train_temporal.main([str(a) for a in given], standalone_mode=False) == 0
    return folder / "model"


@pytest.fixture(autouse=True)
def _no_weights_by_accident(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEATURES_WEIGHTS", raising=False)


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Runs a click command with arguments as a program would, and gives its exit code and output."""

    def run_it(command: click.Command, *arguments: object) -> Ran:
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_command(command, [str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Ran(int(ended.value.code or 0), captured.out, captured.err)

    return run_it


@pytest.fixture
def extract(run: Run) -> Run:
    """`extract SOURCE... -o OUTPUT` with random weights and one worker unless told otherwise."""

    def extract_it(*arguments: object) -> Ran:
        defaults: Sequence[object] = () if "--weights" in arguments else ("--weights", "random")
        return run(extract_features, *arguments, *defaults, "--workers", "1", "--runtime", "torch")

    return extract_it


@pytest.fixture(scope="session")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two class folders of three short clips each."""
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
        pytest.skip("the real clips are not beside the project")
    return manifest


@pytest.fixture(scope="session")
def real_weights() -> Path:
    folder = Path(os.environ.get("REAL_WEIGHTS", SHARED / "weights"))
    if not any(folder.glob("mobilenet_v2*")):
        pytest.skip("the real weights are not beside the project")
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a small video."""
    return write_numbered(tmp_path_factory.mktemp("video") / "a.mp4", 12).read_bytes()


@pytest.fixture
def site() -> Iterator[Site]:
    """A web server on this machine."""
    with serving() as site:
        yield site
