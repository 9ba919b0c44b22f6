"""A machine on which OpenCV does not load: what needs it ends with one line, and what does not need it works."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.data.monitor_folders import MonitorFolder
from tests.helpers.paths import ROOT

BROKEN = 'raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")'
"""What the import of a library says where a shared library is missing."""
BROKEN_OPENCV = f"""
import sys
if hasattr(sys, "OpenCV_LOADER"):
    print(sys.path)
    raise ImportError('ERROR: recursion is detected during loading of "cv2" binary extensions.')
sys.OpenCV_LOADER = True
{BROKEN}
"""
"""What opencv-python does on a Debian without a desktop: only the first import in a process names the library."""
PROGRAMS = {
    "extract": "features.cli.extract:extract_features",
    "features": "features.cli.manage:features",
    "train": "hazard.cli.train:train_temporal",
    "infer": "hazard.cli.infer:infer",
    "hazard": "hazard.cli.main:hazard",
}
RUN_ALL = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO
from pkgutil import walk_packages
from features.utils.command_line import run_command
for program, *arguments in json.loads(sys.argv[1]):
    module, name = program.split(":")
    vars(sys).pop("OpenCV_LOADER", None)
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        try:
            run_command(getattr(import_module(module), name), arguments)
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code or 0, out.getvalue(), err.getvalue()]), file=sys.__stdout__, flush=True)
for wing in sys.argv[2:]:
    for module in walk_packages(import_module(wing).__path__, wing + "."):
        import_module(module.name)
"""
STAGE_TWO = ("hazard.metrics", "hazard.data", "hazard.models", "hazard.training", "hazard.experiments")
ALERTS = """
alerts:
  channels:
  - {name: nobody, kind: webhook, url: "http://127.0.0.1:9/", secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}
"""


@dataclass(frozen=True)
class Machine:
    """Where the commands run, and with which environment variables."""

    folder: Path
    environment: dict[str, str]

    def run(self, *commands: Sequence[object], wings: Sequence[str] = ()) -> list[tuple[int, str, str]]:
        """Run commands in one new process, then import all modules of `wings`; return (exit code, output, errors)."""
        words = [[PROGRAMS[str(program)], *map(str, arguments)] for program, *arguments in commands]
        ran = subprocess.run(
            [sys.executable, "-c", RUN_ALL, json.dumps(words), *wings],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        results = [tuple(json.loads(line)) for line in ran.stdout.splitlines()]
        assert ran.returncode == 0 and len(results) == len(commands), ran.stderr
        return results


@pytest.fixture
def bare(tmp_path: Path) -> Machine:
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "cv2.py").write_text(BROKEN_OPENCV)
    path = os.pathsep.join([str(tmp_path / "bare"), str(ROOT)])
    return Machine(tmp_path, {**os.environ, "PYTHONPATH": path})


def test_what_needs_opencv_ends_with_one_line_and_two_remedies(bare: Machine, small_model: Path) -> None:
    videos = small_model.parent / "manifest.csv"
    results = bare.run(
        ("extract", videos, "-o", "c.h5", "--weights", "random"),
        ("features", "manifest", small_model.parent, "-o", "m.csv"),
        ("infer", videos, "--model", small_model, "-o", "report"),
        ("hazard", "demo"),
        ("hazard", "monitor", "a.mp4", "--model", small_model, "-o", "watch"),
        ("hazard", "monitor", "--evaluate", "a.mp4", "--truth", "t.csv", "--model", small_model),
        ("hazard", "serve", "--model", small_model, "--port", 0),
    )
    for code, out, err in results:
        assert (code, out) == (5, "")
        lines = err.strip().splitlines()
        assert len(lines) == 1, err
        assert "OpenCV cannot be loaded, because the shared library libGL.so.1 is missing" in lines[0]
        assert "apt-get install libgl1" in lines[0]
        assert re.search(r"-m pip install --force-reinstall --no-deps opencv-python-headless(==[\d.]+)?$", lines[0])


def test_help_and_wrong_options_need_no_library(bare: Machine) -> None:
    for library in ("numpy", "pydantic", "yaml", "torch", "av", "h5py"):
        (bare.folder / "bare" / f"{library}.py").write_text(BROKEN)
    helps = bare.run(*([program, "--help"] for program in PROGRAMS), ("hazard", "monitor", "--help"))
    assert {code for code, *_ in helps} == {0}
    wrong = bare.run(*([program, "--nonsense"] for program in PROGRAMS), ("hazard", "serve", "--nonsense"))
    assert {code for code, *_ in wrong} == {2}
    (code, _, err), *_ = bare.run(("features", "inspect", "c.h5"))
    assert code == 5 and "cannot be loaded, because the shared library libGL.so.1 is missing" in err


def test_stage_two_needs_no_opencv(bare: Machine, small_model: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(12):
        file = bare.folder / "arrays" / ("fall", "walk")[number % 2] / f"{number}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, rng.normal(size=(4, 8)).astype(np.float32))
    (bare.folder / "alerts.yaml").write_text(ALERTS)
    made = small_model.parent
    results = bare.run(
        ("features", "import", "arrays", "-o", "a.h5"),
        ("features", "inspect", "a.h5"),
        ("features", "verify", "a.h5", "arrays"),
        ("features", "verify", made / "c.h5", made / "manifest.csv"),
        ("features", "merge", "a.h5", "a.h5", "-o", "b.h5"),
        ("features", "reduce", "a.h5", "-o", "r.h5", "--reduce", "select:4"),
        ("features", "export", "a.h5", "-o", "arrays-again"),
        ("train", "a.h5", "-o", "ridge", "--baseline", "ridge", "--folds", 2),
        wings=STAGE_TWO,
    )
    assert [(code, err) for code, _, err in results if code] == []
    ((code, out, err),) = bare.run(("hazard", "alert-test", "alerts.yaml"))
    assert (code, err) == (3, "") and "nobody (webhook): no answer" in out


def test_the_pages_of_cameras_need_no_opencv(bare: Machine) -> None:
    scene = MonitorFolder(bare.folder / "yard")
    scene.add_event()
    scene.write()
    command = [sys.executable, "-m", "hazard", "serve", "--monitor", str(scene.folder), "--port", "0"]
    with subprocess.Popen(command, cwd=bare.folder, env=bare.environment, stdout=subprocess.PIPE, text=True) as served:
        assert served.stdout is not None
        address = re.search(r"http://\S+", served.stdout.readline())
        assert address is not None
        with urllib.request.urlopen(address[0], timeout=60) as page:
            assert page.status == 200
        served.send_signal(signal.SIGTERM)
        assert served.wait(60) == 143
