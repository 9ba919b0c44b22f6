"""Predictions for the reports of tests, and readers of the files of a report."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hazard.events.decision import Decision, decide_clip
from hazard.events.rule import EventRule
from hazard.report.facts import ReportInfo, ReportSummary
from hazard.report.writer import write_report
from hazard.types import ClipPrediction, WindowPredictions

JPEG = b"\xff\xd8\xff\xd9"
RULE = EventRule("fight", 0, on_threshold=0.4, off_threshold=0.3)
INFO = ReportInfo(
    labels=("fight", "noFight"),
    positive_label="fight",
    threshold=0.4,
    model={"name": "m", "groups_known": True, "evaluation": {"roc_auc": {"value": 0.871, "low": 0.82, "high": 0.91}}},
    created="2025-11-20T13:26:04+00:00",
    source="clips/",
    rules=(RULE,),
)
DECISION = Decision(INFO.labels, INFO.positive_label, INFO.threshold, (RULE,), unknown_from=3.0)
HOSTILE_NAMES = (
    "<script>alert(1)</script>.mp4",
    '"><img src=x onerror=alert(1)>.mp4',
    "</script><!--<script>.mp4",
    "line one\nline two.mp4",
    "line\u2028separator.mp4",
    "carriage\rreturn.mp4",
    "gpj.\u202e4pm.exe",
    "=cmd|' /C calc'!A1",
    "@SUM(1+1),2;=3.mp4",
    "{{ 7 * 7 }}{% raw %}.mp4",
    "not-utf8-\udcff.mp4",
    "مقطع ٣.mp4",
    "null\x00byte\x1b[31m.mp4",
    "tag\U000e0041.mp4",
)


def make_clip(path: str = "a.mp4", p: float = 0.9, **changes: object) -> ClipPrediction:
    """Return a decided clip of two seconds with one window, whose probability of a fight is `p`."""
    return make_long_clip([p], path, seconds=2.0, **changes)


def make_long_clip(
    of_fight: Sequence[float], path: str = "long.mp4", *, seconds: float = 1.0, **changes: object
) -> ClipPrediction:
    """Return a decided clip with one window per `seconds` and these probabilities of a fight."""
    starts, p = np.arange(len(of_fight)) * seconds, np.asarray(of_fight, np.float64)
    windows = WindowPredictions(np.stack([starts, starts + seconds], 1), np.stack([p, 1 - p], 1))
    undecided = {name: changes.pop(name) for name in ("unknown_score",) if name in changes}
    made = ClipPrediction(path, "ok", duration=len(p) * seconds, windows=windows, **undecided)  # type: ignore[arg-type]
    return replace(decide_clip(made, DECISION), **changes)  # type: ignore[arg-type]


def make_failed_clip(path: str = "zero.mp4", reason: str = "open: the file is empty") -> ClipPrediction:
    """Return a clip that could not be read."""
    return ClipPrediction(path, "failed", reason)


def write_test_report(
    folder: Path, clips: Sequence[ClipPrediction], info: ReportInfo = INFO, **options: Any
) -> ReportSummary:
    """Write a report of these clips and return its summary."""
    return write_report(folder, lambda: iter(clips), info, **options)


def read_csv_rows(folder: Path, table: str = "predictions") -> list[dict[str, str]]:
    """Return the rows of a CSV table of the report."""
    with (folder / f"{table}.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def read_report_json(folder: Path) -> dict[str, Any]:
    """Return the content of report.json."""
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def page_rows(folder: Path) -> list[dict[str, Any]]:
    """Return the listed clips of the page, as its script reads them."""
    return [json.loads(line) for line in _blocks(folder, "r")]


def page_details(folder: Path) -> list[dict[str, Any]]:
    """Return the details that the page holds for each listed clip."""
    return [json.loads(line) for line in _blocks(folder, "d")]


def page_pictures(folder: Path) -> list[list[str]]:
    """Return the Base64 thumbnails of each listed clip."""
    return [line.split(",") if line else [] for line in _blocks(folder, "p")]


def page_meta(folder: Path) -> dict[str, Any]:
    """Return the metadata of the report in the page."""
    found = re.search(r'<script type="application/json" id="meta">(.*?)</script>', _page(folder))
    assert found
    return json.loads(found.group(1))


def _blocks(folder: Path, letter: str) -> list[str]:
    texts = re.findall(rf'<script type="text/plain" id="{letter}\d+">(.*?)</script>', _page(folder), re.DOTALL)
    return [line for text in texts for line in text.split("\n")]


def _page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")
