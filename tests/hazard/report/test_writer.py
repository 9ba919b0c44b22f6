"""The tables and report.json: their content, failed clips without a label in every format, and bounded memory."""

import csv
import json
import sys
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from features.errors import RuntimeEnvironmentError, SettingsError
from hazard.report.facts import summarize
from hazard.report.json_report import report_schema
from hazard.report.parquet import check_parquet
from hazard.report.tables import unescape_formula
from hazard.report.writer import write_report
from hazard.types import ClipPrediction
from hazard.utils.text import format_clock, format_percent
from tests.helpers.data.predictions import (
    HOSTILE_NAMES,
    INFO,
    JPEG,
    make_clip,
    make_failed_clip,
    make_long_clip,
    page_rows,
    read_csv_rows,
    read_report_json,
    write_test_report,
)

FILES = ["events.csv", "predictions.csv", "report.html", "report.json", "windows.csv"]


def test_csv_has_the_documented_columns_in_the_order_given(tmp_path: Path) -> None:
    write_test_report(tmp_path, [make_clip("a.mp4", 0.1), make_failed_clip("b.mp4"), make_clip("c.mp4", 0.9)])
    header = (tmp_path / "predictions.csv").read_text().splitlines()[0]
    assert header == "path,status,label,probability,fight,noFight,reason"
    assert [row["path"] for row in read_csv_rows(tmp_path)] == ["a.mp4", "b.mp4", "c.mp4"]
    first = read_csv_rows(tmp_path)[0]
    assert (first["label"], float(first["probability"]), float(first["fight"])) == ("noFight", 0.9, 0.1)


def test_windows_and_events_have_a_row_each(tmp_path: Path) -> None:
    write_test_report(
        tmp_path,
        [
            make_clip("a.mp4", 0.1),
            make_long_clip([0.1, 0.9, 0.8, 0.1, 0.1, 0.1, 0.7], "b.mp4"),
            make_failed_clip("c.mp4"),
        ],
    )
    windows = read_csv_rows(tmp_path, "windows")
    assert [row["label"] for row in windows if row["path"] == "b.mp4"] == [
        "noFight", "fight", "fight", "noFight", "noFight", "noFight", "fight",
    ]  # fmt: skip
    assert [row["path"] for row in windows].count("a.mp4") == 1 and len(windows) == 8
    assert {key: windows[2][key] for key in ("start", "end", "fight")} == {
        "start": "1.000000", "end": "2.000000", "fight": "0.900000",
    }  # fmt: skip
    events = read_csv_rows(tmp_path, "events")
    assert [(row["path"], row["label"], float(row["start"]), float(row["end"])) for row in events] == [
        ("b.mp4", "fight", 1.0, 3.0), ("b.mp4", "fight", 6.0, 7.0),
    ]  # fmt: skip
    assert (float(events[0]["peak"]), float(events[0]["mean"])) == (0.9, 0.85)


def test_failed_clip_has_a_reason_and_never_a_class(tmp_path: Path) -> None:
    carries_a_class = make_clip("broken.mp4", 0.9, status="failed", reason="decode: timeout", truth="fight")
    summary = write_test_report(tmp_path, [carries_a_class, make_clip("good.mp4", 0.1)])
    row = read_csv_rows(tmp_path)[0]
    assert row.pop("path") == "broken.mp4" and row.pop("status") == "failed" and row.pop("reason") == "decode: timeout"
    assert set(row.values()) == {""}
    assert not [
        row for table in ("windows", "events") for row in read_csv_rows(tmp_path, table) if "broken" in row["path"]
    ]
    report = read_report_json(tmp_path)
    assert report["failures"] == [{"path": "broken.mp4", "status": "failed", "reason": "decode: timeout"}]
    assert [entry["path"] for entry in report["clips"]] == ["good.mp4"]
    assert (summary.with_truth, summary.events, report["summary"]["with_truth"]) == (0, 0, 0)


def test_failed_clip_without_reason_says_so(tmp_path: Path) -> None:
    write_test_report(tmp_path, [make_failed_clip(reason="")])
    assert read_csv_rows(tmp_path)[0]["reason"] == "no reason was recorded"


@pytest.mark.parametrize("start", list("=+-@\t\r\n＝"))
def test_text_cells_never_begin_a_formula_and_can_be_read_back(tmp_path: Path, start: str) -> None:
    info = replace(INFO, labels=(start + "1", "noFight"), positive_label="noFight")
    paths = [start + "1+1", "'" + start + "1+1", "'plain"]
    write_test_report(
        tmp_path, [make_clip(path, label=start + "1", reason=start + "2", events=()) for path in paths], info
    )
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as handle:
        cells = [cell for row in csv.reader(handle) for cell in row]
    assert not [cell for cell in cells if cell.startswith(start)]
    assert [unescape_formula(row["path"]) for row in read_csv_rows(tmp_path)] == paths


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_kept_in_tables_and_json(tmp_path: Path, name: str) -> None:
    write_test_report(tmp_path, [make_clip("x/" + name, reason=name), make_failed_clip("y/" + name, reason=name)])
    assert [len(read_csv_rows(tmp_path, table)) for table in ("predictions", "windows", "events")] == [2, 1, 1]
    assert read_csv_rows(tmp_path)[0]["path"] == "x/" + name.encode("utf-8", "backslashreplace").decode()
    report = read_report_json(tmp_path)
    assert (report["clips"][0]["path"], report["failures"][0]["path"]) == ("x/" + name, "y/" + name)


def all_kinds() -> list[ClipPrediction]:
    return [
        make_clip("a.mp4", 0.9, truth="noFight", thumbnails=(JPEG,), thumbnail_times=(0.5,)),
        make_clip("b.mp4", 0.2, status="partial", reason="62 % decoded", truth="dancing"),
        make_clip("c.mp4", 0.3, unknown_score=4.0, zero_shot=(("dancing", 0.6), ("walking", 0.3))),
        make_long_clip([0.1, 0.9, 0.1], "d.mp4", attention=(0.5, 0.5), attention_times=(1.0, 1.5)),
        make_failed_clip("e.mp4"),
    ]


def test_json_is_as_the_shipped_schema_says(tmp_path: Path) -> None:
    schema = report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    write_test_report(tmp_path, all_kinds(), evaluation={"accuracy": 0.5, "worst": []})
    report = read_report_json(tmp_path)
    jsonschema.validate(report, schema)
    by_path = {entry["path"]: entry for entry in report["clips"]}
    assert by_path["c.mp4"]["is_unknown"] and by_path["c.mp4"]["zero_shot"][0] == {
        "label": "dancing",
        "probability": 0.6,
    }
    assert by_path["d.mp4"]["windows"]["probabilities"]["fight"] == [0.1, 0.9, 0.1]
    assert by_path["d.mp4"]["attention"] == {"seconds": [1.0, 1.5], "weights": [0.5, 0.5]}
    assert by_path["d.mp4"]["events"][0]["start"] == 1.0
    assert report["summary"]["unknown"] == 1 and report["rules"][0]["enter"] == 0.4
    for broken in ({"clips": [{"path": "x"}]}, {"schema": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(report | broken, schema)


def test_json_of_nothing_is_as_the_schema_says(tmp_path: Path) -> None:
    write_test_report(tmp_path, [])
    jsonschema.validate(read_report_json(tmp_path), report_schema())


def test_json_is_strict(tmp_path: Path) -> None:
    model = {"auc": {"value": np.float32(0.5), "low": float("nan")}, "clips": np.int64(160), "file": Path("runs/x")}
    write_test_report(tmp_path, [make_clip("a.mp4", 0.25, duration=float("nan"))], replace(INFO, model=model))
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    report = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert report["labels"] == ["fight", "noFight"] and report["threshold"] == 0.4
    assert report["model"] == {"auc": {"value": 0.5, "low": None}, "clips": 160, "file": "runs/x"}
    assert report["clips"][0]["probabilities"] == {"fight": 0.25, "noFight": 0.75}
    assert report["clips"][0]["duration_seconds"] is None


def test_truth_gives_right_wrong_and_accuracy(tmp_path: Path) -> None:
    clips = [
        make_clip("false-alarm.mp4", 0.8, truth="noFight"),
        make_clip("foreign.mp4", 0.2, truth="dancing"),
        make_clip("missed.mp4", 0.1, truth="fight"),
        make_clip("right.mp4", 0.9, truth="fight"),
        make_clip("unknown.mp4", 0.3),
    ]
    summary = write_test_report(tmp_path, clips)
    assert summary == summarize(clips, INFO)
    assert (summary.with_truth, summary.correct, summary.missed, summary.false_alarms) == (3, 1, 1, 1)
    assert [entry["correct"] for entry in read_report_json(tmp_path)["clips"]] == [False, None, False, True, None]


def test_parquet_holds_what_the_csv_tables_hold(tmp_path: Path) -> None:
    parquet = check_parquet()[1]
    info = replace(INFO, labels=("path", "noFight"), positive_label="path", rules=())
    clips = [replace(each, label="path" if each.label == "fight" else "noFight", events=()) for each in all_kinds()[:4]]
    write_test_report(tmp_path, [*clips, make_failed_clip("not-utf8-\udcff.mp4")], info, parquet=True)
    table = parquet.read_table(tmp_path / "predictions.parquet").to_pylist()
    assert [row["path"] for row in table] == ["a.mp4", "b.mp4", "c.mp4", "d.mp4", "not-utf8-\\udcff.mp4"]
    assert list(table[0]) == ["path", "status", "label", "probability", "path (class)", "noFight", "reason"]
    assert table[0]["path (class)"] == 0.9 and table[-1]["label"] is None and table[-1]["noFight"] is None
    assert parquet.read_table(tmp_path / "windows.parquet").num_rows == len(read_csv_rows(tmp_path, "windows")) == 6
    assert parquet.read_table(tmp_path / "events.parquet").num_rows == 0


def test_older_parquet_does_not_contradict_a_new_report(tmp_path: Path) -> None:
    write_test_report(tmp_path, [make_clip("old.mp4")], parquet=True)
    write_test_report(tmp_path, [make_clip("new.mp4")])
    assert sorted(path.name for path in tmp_path.iterdir()) == FILES


def test_parquet_without_pyarrow_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(SettingsError, match="pip install pyarrow"):
        write_report(tmp_path, lambda: pytest.fail("clips were read"), INFO, parquet=True)


@pytest.mark.parametrize("parquet", [False, True])
def test_many_clips_are_streamed(tmp_path: Path, parquet: bool) -> None:
    """Memory is limited to one block and the page's 20,000 rows, for any number of clips."""
    template = make_clip("a.mp4", 0.3, thumbnails=(JPEG * 40,) * 2, thumbnail_times=(0.5, 1.0))

    def clips(count: int) -> Iterator[ClipPrediction]:
        return (replace(template, path=f"{number:07}.mp4") for number in range(count))

    held = []
    for count in (30, 3000):
        tracemalloc.start()
        write_report(tmp_path, lambda count=count: clips(count), INFO, parquet=parquet)  # type: ignore[misc]
        held.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert held[1] - held[0] < 6_000_000  # all clips together are more than 10 MB
    assert len(read_csv_rows(tmp_path)) == len(page_rows(tmp_path)) == 3000


@pytest.mark.parametrize(
    "changes",
    [
        {"label": "dance"},
        {"label": ""},
        {"probs": (1.0,)},
        {"probs": (float("nan"), 0.5)},
        {"status": "fine"},
        {"thumbnails": (JPEG,)},
        {"windows": replace(make_long_clip([0.1]).windows, probs=np.array([[float("nan"), 0.5]]))},  # type: ignore[type-var]
    ],
    ids=str,
)
def test_clip_that_does_not_fit_is_refused_by_name(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(ValueError, match=r"a\.mp4"):
        write_test_report(tmp_path, [make_clip(), make_clip(**changes)])
    assert not list(tmp_path.iterdir())


def test_files_are_replaced_together_or_not_at_all(tmp_path: Path) -> None:
    write_test_report(tmp_path, [make_clip("old.mp4")])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    calls = []

    def breaks_while_writing() -> Iterator[ClipPrediction]:
        calls.append(1)
        yield make_clip("new.mp4")
        if len(calls) > 1:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_report(tmp_path, breaks_while_writing, INFO)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert sorted(before) == FILES


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RuntimeEnvironmentError, match=r"cannot write the report to .*file"):
        write_test_report(tmp_path / "file" / "report", [make_clip()])


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.0004, "<1 %"), (0.5, "50 %"), (0.9996, ">99 %"), (1.0, "100 %")]
)
def test_percent_never_rounds_to_certainty(share: float, text: str) -> None:
    assert format_percent(share) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.84, "4.8 s"), (59.97, "1:00"), (65, "1:05"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert format_clock(seconds) == text
