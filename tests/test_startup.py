"""What a command line, and a worker that runs OpenVINO, do not wait for."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from features.backbones import BACKBONES
from features.jobs import DecodeJob, Extracted, ExtractJob
from features.spec import FeatureSpec, Sampling
from features.types import Clip
from features.weights import weights_digest
from tests.media import write_numbered

HEAVY = ("torch", "torchvision", "sklearn", "skops", "matplotlib", "scipy", "pandas", "ray")
SAY = f"import json, sys; print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
ROOT = Path(__file__).parent.parent
SPEC = FeatureSpec(
    sampling=Sampling(frames=2),
    preprocessing=BACKBONES["mobilenet_v2"].preprocessing.model_copy(update={"size": 64, "resize": 64}),
    backbone="mobilenet_v2",
    weights="random",
    weights_digest=weights_digest("mobilenet_v2", None),
    pooling="avg",
)


def heavy_after(*lines: str) -> list[str]:
    """Which heavy libraries a fresh process has imported once it has run these lines."""
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join([*lines, SAY])], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "lines",
    [
        ["import features.extract, features.engines, features.recipe"],
        ["import features.jobs, features.openvino_runtime, features.openvino_kept"],
        ["from features.devices import pick_devices", "pick_devices('cpu')"],
        ["import hazard.batch"],
        ["import hazard.delivery, hazard.__main__"],
    ],
    ids=lambda lines: lines[0].removeprefix("import ").split(",")[0],
)
def test_what_decodes_is_light(lines: list[str]) -> None:
    assert heavy_after(*lines) == []


@pytest.mark.parametrize("module", ["features.cli", "hazard.cli_infer"])
def test_help_is_light(module: str) -> None:
    run = f"import sys; sys.argv = ['command', '--help']; from {module} import main"
    assert heavy_after(run, "try: main()", "except SystemExit as ended: assert not ended.code") == []


@pytest.mark.parametrize("job", [ExtractJob(DecodeJob(SPEC), None, Path("a.xml")), ExtractJob(DecodeJob(SPEC), None)])
def test_what_workers_share_starts_no_thread(job: ExtractJob) -> None:
    """They are forked from it: whoever waits for a lock of a thread that was not forked with it waits for ever."""
    alone = "assert len(threading.enumerate()) == 1, threading.enumerate()"
    found = heavy_after("import threading", *(f"import {name}" for name in job.preload), alone)
    assert ("torch" in found) == (job.converted is None)


def test_an_openvino_worker_does_without_torch(tmp_path: Path) -> None:
    """The network is converted here, once; a process that finds it kept gives the same features."""
    pytest.importorskip("openvino")
    from features.openvino_kept import kept_network

    video, (here, there) = write_numbered(tmp_path / "a.mp4", 12), (tmp_path / "here", tmp_path / "there")
    here.mkdir()
    there.mkdir()
    found = ExtractJob(DecodeJob(SPEC), None, kept_network(SPEC, None, here)).start()(
        Clip("a.mp4", video), lambda: None
    )
    assert isinstance(found, Extracted)
    assert not heavy_after(
        "import numpy as np",
        "from pathlib import Path",
        "from features.jobs import DecodeJob, ExtractJob",
        "from features.openvino_kept import kept_network",
        "from features.spec import parse_spec",
        "from features.types import Clip",
        f"spec = parse_spec({SPEC.model_dump_json()!r})",
        f"job = ExtractJob(DecodeJob(spec), None, kept_network(spec, None, Path({str(there)!r})))",
        f"found = job.start()(Clip('a.mp4', Path({str(video)!r})), lambda: None)",
        f"np.save({str(tmp_path / 'found.npy')!r}, found.tracks[0].features)",
    )
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), found.tracks[0].features)
