from pathlib import Path

from hazard.__main__ import hazard
from tests.conftest import Run


def test_demo_runs_all_three_stages(tmp_path: Path, run: Run, monkeypatch: object) -> None:
    ran = run(hazard, "demo", "-o", tmp_path / "demo", "--clips-per-class", 8)
    assert ran.code == 0
    assert "RANDOM weights" in ran.out
    assert "accuracy on clips" in ran.out
    assert ran.out.strip().splitlines()[-1] == f"report: {(tmp_path / 'demo' / 'report' / 'report.html').resolve()}"
    assert (tmp_path / "demo" / "report" / "report.html").is_file()
