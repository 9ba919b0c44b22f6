"""Commands and OpenVINO workers start without importing heavy libraries."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from features import __version__
from features.backbones.registry import BACKBONES
from features.backbones.weights import weights_digest
from features.extraction.jobs import DecodeJob, ExtractJob
from features.spec import FeatureSpec, Sampling
from features.types import Clip, ExtractedClip
from tests.helpers.data.videos import write_numbered
from tests.helpers.paths import ROOT

HEAVY = ("torch", "torchvision", "sklearn", "skops", "matplotlib", "scipy", "pandas", "ray")
SAY = f"import json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
SPEC = FeatureSpec(
    sampling=Sampling(frames=2),
    preprocessing=BACKBONES["mobilenet_v2"].preprocessing.model_copy(update={"size": 64, "resize": 64}),
    backbone="mobilenet_v2",
    weights="random",
    weights_digest=weights_digest("mobilenet_v2", None),
    pooling="avg",
)


def heavy_after(*lines: str) -> list[str]:
    """Return the heavy libraries that a new process has imported after running these lines."""
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join([*lines, SAY])], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "lines",
    [
        ["import features.extraction.extract, features.extraction.engines, features.extraction.spec_builder"],
        ["import features.extraction.jobs, features.encoders.openvino_encoder, features.encoders.openvino_cache"],
        ["from features.encoders.devices import pick_devices", "pick_devices('cpu')"],
        ["import hazard.inference.run"],
        ["import hazard.alerts.delivery, hazard.cli.main"],
    ],
    ids=lambda lines: lines[0].removeprefix("import ").split(",")[0],
)
def test_what_decodes_is_light(lines: list[str]) -> None:
    assert heavy_after(*lines) == []


@pytest.mark.parametrize("module", ["features.cli.extract", "hazard.cli.infer"])
def test_help_is_light(module: str) -> None:
    run = f"import sys; sys.argv = ['command', '--help']; from {module} import main"
    assert heavy_after(run, "try: main()", "except SystemExit as ended: assert not ended.code") == []


@pytest.mark.parametrize(
    "module", ["features.cli.extract", "features.cli.manage", "hazard.cli.infer", "hazard.cli.main"]
)
def test_each_program_tells_its_version(module: str) -> None:
    run = f"import sys; sys.argv = ['program', '--version']; from {module} import main; main()"
    ran = subprocess.run([sys.executable, "-c", run], cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, f"program {__version__}\n")


@pytest.mark.parametrize("job", [ExtractJob(DecodeJob(SPEC), None, Path("a.xml")), ExtractJob(DecodeJob(SPEC), None)])
def test_what_workers_share_starts_no_thread(job: ExtractJob) -> None:
    """Workers are forked from this process: a thread's lock would stay locked for ever in the child."""
    alone = "assert len(threading.enumerate()) == 1, threading.enumerate()"
    found = heavy_after("import threading", *(f"import {name}" for name in job.preload), alone)
    assert ("torch" in found) == (job.converted is None)


def test_an_openvino_worker_does_without_torch(tmp_path: Path) -> None:
    """The network is converted here once; a process that finds it in the cache gives the same features."""
    pytest.importorskip("openvino")
    from features.encoders.openvino_cache import get_openvino_network

    video, (here, there) = write_numbered(tmp_path / "a.mp4", 12), (tmp_path / "here", tmp_path / "there")
    here.mkdir()
    there.mkdir()
    found = ExtractJob(DecodeJob(SPEC), None, get_openvino_network(SPEC, None, here)).start()(
        Clip("a.mp4", video), lambda: None
    )
    assert isinstance(found, ExtractedClip)
    assert not heavy_after(
        "import numpy as np",
        "from pathlib import Path",
        "from features.extraction.jobs import DecodeJob, ExtractJob",
        "from features.encoders.openvino_cache import get_openvino_network",
        "from features.spec import parse_spec",
        "from features.types import Clip",
        f"spec = parse_spec({SPEC.model_dump_json()!r})",
        f"job = ExtractJob(DecodeJob(spec), None, get_openvino_network(spec, None, Path({str(there)!r})))",
        f"found = job.start()(Clip('a.mp4', Path({str(video)!r})), lambda: None)",
        f"np.save({str(tmp_path / 'found.npy')!r}, found.tracks[0].features)",
    )
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), found.tracks[0].features)
