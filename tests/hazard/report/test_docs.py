"""docs/reports.md: its commands work as printed, and it names all columns and keys of the files."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hazard.report.json_report import report_schema
from tests.helpers.data.predictions import (
    make_clip,
    make_failed_clip,
    make_long_clip,
    read_csv_rows,
    read_report_json,
    write_test_report,
)
from tests.helpers.paths import ROOT

DOCS = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")


def code(language: str) -> str:
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", DOCS, re.DOTALL))


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    strange = make_clip("b.mp4", 0.2, unknown_score=9.0, zero_shot=(("dancing", 0.6),))
    write_test_report(
        tmp_path, [make_clip("a.mp4", truth="fight"), strange, make_long_clip([0.1, 0.9, 0.1, 0.9]), make_failed_clip()]
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", code("sh").splitlines())
def test_jq_one_liners_work_as_printed(report: Path, command: str) -> None:
    if shutil.which("jq") is None or sys.platform == "win32":
        pytest.skip("needs jq and a Unix shell (Debian: the package jq)")
    ran = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "") and ran.stdout.strip()


def test_pandas_lines_work_as_printed(report: Path) -> None:
    lines = code("python").splitlines()
    names: dict = {}
    results = []
    for line in filter(None, lines):
        try:
            results.append(eval(line, names))  # noqa: S307
        except SyntaxError:
            exec(line, names)  # noqa: S102
    assert len(results) == 6 and all(len(result) for result in results)
    assert results[2].loc["fight", "count"] == 3
    assert set(names["clips"].path) == {"a.mp4", "b.mp4", "long.mp4", "zero.mp4"}


def test_every_column_and_key_is_in_the_docs(report: Path) -> None:
    words = set(re.findall(r"`([^`]+)`", re.sub(r"```.*?```", "", DOCS, flags=re.DOTALL)))
    for table in ("predictions", "windows", "events"):
        assert set(read_csv_rows(report, table)[0]) - {"fight", "noFight"} <= words
    assert set(read_report_json(report)) <= words
    schema = report_schema()
    assert set(schema["properties"]) == set(read_report_json(report)) == set(schema["required"])
    assert set(read_report_json(report)["clips"][0]) == set(schema["$defs"]["clip"]["required"]) <= words
    assert str(schema["properties"]["schema"]["const"]) == re.findall(r"\| `schema` \| (\d+)", DOCS)[0]
