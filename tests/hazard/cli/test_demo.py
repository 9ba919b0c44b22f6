from pathlib import Path

from hazard.cli.main import hazard
from tests.conftest import Run


def test_demo_runs_all_three_stages(tmp_path: Path, run: Run, monkeypatch: object) -> None:
    ran = run(hazard, "demo", "-o", tmp_path / "demo", "--clips-per-class", 8)
    assert ran.code == 0
    assert "RANDOM weights" in ran.out
    assert "accuracy on clips" in ran.out
    *_, report, page = ran.out.strip().splitlines()
    assert f"serve --model {tmp_path / 'demo' / 'model'}" in page and "http://127.0.0.1:8000" in page
    assert report == f"report: {(tmp_path / 'demo' / 'report' / 'report.html').resolve()}"
    assert (tmp_path / "demo" / "report" / "report.html").is_file()
