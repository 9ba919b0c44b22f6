"""The example scripts, with a stand-in for what they submit to."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from features.__main__ import features
from features.cache import read_header
from tests.conftest import Run

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "examples" / "slurm_extract.sh"
SBATCH = """#!/usr/bin/env bash
# Runs at once what SLURM would run some day: each share of an array, or one job.
echo "$1 $2" >> "$SUBMITTED"
tasks=(none)
[[ $2 =~ ^--array=1-([0-9]+)$ ]] && tasks=($(seq "${BASH_REMATCH[1]}"))
shift 2
for task in "${tasks[@]}"; do
    export SLURM_JOB_ID=17 SLURM_CPUS_PER_TASK=1 SLURM_ARRAY_TASK_ID=$task
    [[ $task == none ]] && unset SLURM_ARRAY_TASK_ID
    bash "$@" >&2
done
echo "17;here"
"""


def submit(tmp_path: Path, *arguments: object, program: str) -> "subprocess.CompletedProcess[str]":
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "EXTRACT": program,
        "SUBMITTED": str(tmp_path / "submitted"),
    }
    command = ["bash", SCRIPT, *arguments]
    return subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True, timeout=300)


def test_slurm_submits_each_share_and_a_last_job(tmp_path: Path) -> None:
    ran = submit(tmp_path, 3, "a folder", "-o", "c.h5", program="echo extracts")
    assert ran.returncode == 0
    assert ran.stdout == "submitted: array 17 of 3 shares, then job 17, which builds the cache\n"
    assert (tmp_path / "submitted").read_text().splitlines() == [
        "--parsable --array=1-3",
        "--parsable --dependency=afterany:17",
    ]
    shares = [f"extracts a folder -o c.h5 --shard {i}/3 --workers 1" for i in (1, 2, 3)]
    assert ran.stderr.splitlines() == [*shares, "extracts a folder -o c.h5 --workers 1"]


def test_keras_trains_on_a_cache_that_h5py_reads(tmp_path: Path, run: Run) -> None:
    if find_spec("keras") is None:
        pytest.skip("keras is not installed: pip install 'hazard-video[test]'")
    rng, lines = np.random.default_rng(0), ["path,label,group"]
    for label, middle in (("calm", -1), ("fight", 1)):  # far apart
        for i in range(8):
            np.save(tmp_path / f"{label}{i}.npy", (middle + 0.1 * rng.normal(size=(2 + i % 3, 6))).astype(np.float16))
            lines.append(f"{label}{i}.npy,{label},group {i % 4}")
    (tmp_path / "manifest.csv").write_text("\n".join(lines))
    assert run(features, "import", tmp_path / "manifest.csv", "-o", tmp_path / "c.h5").code == 0
    command = [sys.executable, ROOT / "examples" / "keras_lstm.py", tmp_path / "c.h5", "--epochs", "8"]
    environment = os.environ | {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path), "PYTHONPATH": ""}
    ran = subprocess.run([str(part) for part in command], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "16 clips of up to 4 steps" in ran.stdout
    assert "are for testing" in ran.stdout
    found = re.search(r"^accuracy (\d\.\d+) on", ran.stdout, re.MULTILINE)
    assert found is not None and float(found[1]) > 0.7


@pytest.mark.parametrize("arguments", [[], ["clips"], ["0", "clips"], ["4"]])
def test_slurm_says_how_it_is_used(tmp_path: Path, arguments: list[str]) -> None:
    ran = submit(tmp_path, *arguments, program="echo extracts")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("usage: ")


@pytest.mark.long
def test_slurm_fills_one_cache(numbered: Path, tmp_path: Path) -> None:
    output = tmp_path / "c.h5"
    options = ["--weights", "random", "--runtime", "torch", "--device", "cpu", "--frames", "2"]
    ran = submit(tmp_path, 2, numbered, "-o", output, *options, program=f"{sys.executable} {ROOT}/extract_features.py")
    assert ran.returncode == 0, ran.stderr
    assert len(read_header(output).clips) == 6
