"""The part of a report about its model, for any content of metrics.json."""

import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hazard.report.facts import ReportInfo
from hazard.report.model_info import make_report_info
from tests.helpers.data.predictions import DECISION, RULE

NOW = datetime(2026, 1, 2, tzinfo=UTC)
PREDICTOR: Any = SimpleNamespace(
    info=SimpleNamespace(
        labels=("fight", "noFight"), positive_label="fight", threshold=0.5, name="m", kind="head", fingerprint="f",
        groups_known=True, split="5 folds",
    ),
    feature_spec={"preprocessing": {"fit": "crop"}},
)  # fmt: skip


def info_of(folder: Path, **options: Any) -> ReportInfo:
    return make_report_info(PREDICTOR, folder, ["a/", Path("b.csv")], created=NOW, **options)


def test_decision_and_windows_are_those_of_the_run(tmp_path: Path) -> None:
    info = info_of(tmp_path, decision=DECISION, window_seconds=2.0, stride_seconds=1.0)
    assert (info.threshold, info.rules, info.unknown_from, info.window_seconds) == (0.4, (RULE,), 3.0, 2.0)
    assert (info_of(tmp_path).threshold, info_of(tmp_path).rules, info.source) == (0.5, (), "a/, b.csv")


def test_evaluation_is_that_of_the_model(tmp_path: Path) -> None:
    point = {"target": 1.0, "threshold": 0.64, "recall": 0.9, "achieved": 0.5}
    metrics = {
        "accuracy": {"value": 0.8},
        "clips": 160,
        "false_alarms_per_hour": [point],
        "leakage": {"duplicate_pairs": 2},
    }
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    model = info_of(tmp_path).model
    assert (model["accuracy"], model["clips evaluated"]) == ({"value": 0.8}, 160)
    assert (model["operating_points"], model["duplicate_pairs"]) == ([point], 2)


@pytest.mark.parametrize("content", ["", "[]", '{"accuracy": 1, "false_alarms_per_hour": [{}], "leakage": 3}', "\x00"])
def test_metrics_that_say_nothing_leave_figures_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "metrics.json").write_text(content)
    assert not {"accuracy", "operating_points", "duplicate_pairs"} & set(info_of(tmp_path).model)
