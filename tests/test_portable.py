"""Stage two runs without what Windows lacks. tests/helpers/windows_like.py says what that is."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.paths import ROOT
from tests.helpers.stage_two import CLIPS, LABELS


def test_stage_two_runs_where_windows_modules_are_absent(tmp_path: Path) -> None:
    """Output goes to a pipe that cannot hold the labels, as on Windows."""
    ran = subprocess.run(
        [sys.executable, "-m", "tests.helpers.stage_two", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="cp1252",
        errors="replace",
    )
    assert not ran.returncode, ran.stderr
    codes = json.loads(ran.stdout.splitlines()[-1])
    assert set(codes.values()) == {0}, (codes, ran.stderr)
    with open(tmp_path / "exported" / "manifest.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(LABELS) * CLIPS
    assert {row["path"].partition("/")[0] for row in rows} == {row["label"] for row in rows} == set(LABELS)
    assert not [path for path in tmp_path.rglob("*") if ".tmp" in path.name]
