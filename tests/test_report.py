"""hazard.report: what no format may say of a failed clip, and what no name may do to any of them."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from features.errors import EnvironmentStopped
from hazard.report import ReportInfo, clock, percent, summarise, write_report
from hazard.types import ClipPrediction

JPEG = b"\xff\xd8\xff\xd9"
INFO = ReportInfo(
    labels=("fight", "noFight"),
    positive_label="fight",
    threshold=0.4,
    model={"name": "m", "groups_known": True, "evaluation": {"roc_auc": {"value": 0.871, "low": 0.82, "high": 0.91}}},
    created="2025-11-20T13:26:04+00:00",
    source="clips/",
)
HOSTILE_NAMES = (
    "<script>alert(1)</script>.mp4",
    '"><img src=x onerror=alert(1)>.mp4',
    "line one\nline two.mp4",
    "carriage\rreturn.mp4",
    "gpj.\u202e4pm.exe",
    "=cmd|' /C calc'!A1",
    "@SUM(1+1),2;=3.mp4",
    "{{ 7 * 7 }}{% raw %}.mp4",
    "not-utf8-\udcff.mp4",
    "مقطع ٣.mp4",
)


def clip(path: str = "a.mp4", p: float = 0.9, **changes: object) -> ClipPrediction:
    made = ClipPrediction(path, "ok", label="fight" if p >= INFO.threshold else "noFight", probs=(p, 1 - p), duration=2)
    return replace(made, **changes)  # type: ignore[arg-type]


def failed(path: str = "zero.mp4", reason: str = "open: the file is empty") -> ClipPrediction:
    return ClipPrediction(path, "failed", reason)


class Page(HTMLParser):
    """The elements of a page, with their attributes, and the text of each clip's and failure's name."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.source = (folder / "report.html").read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def section(self, name: str) -> str:
        found = re.search(rf'<section id="{name}".*?</section>', self.source, re.DOTALL)
        return found.group() if found else ""


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "predictions.csv").open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def json_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def test_csv_has_the_documented_columns_in_the_order_given(tmp_path: Path) -> None:
    write_report(tmp_path, [clip("b.mp4", 0.1), failed(), clip("a.mp4", 0.9)], INFO)
    header = (tmp_path / "predictions.csv").read_text().splitlines()[0]
    assert header == "path,status,label,probability,fight,noFight,reason"
    assert [row["path"] for row in rows_of(tmp_path)] == ["b.mp4", "zero.mp4", "a.mp4"]
    first = rows_of(tmp_path)[0]
    assert (first["label"], float(first["probability"]), float(first["fight"])) == ("noFight", 0.9, 0.1)


def test_failed_clip_has_a_reason_and_never_a_class(tmp_path: Path) -> None:
    carries_a_class = clip("broken.mp4", 0.9, status="failed", reason="decode: timeout", truth="fight")
    write_report(tmp_path, [clip("good.mp4", 0.1), carries_a_class], INFO)

    row = rows_of(tmp_path)[1]
    assert row.pop("path") == "broken.mp4" and row.pop("status") == "failed" and row.pop("reason") == "decode: timeout"
    assert set(row.values()) == {""}

    report = json_of(tmp_path)
    assert report["failures"] == [{"path": "broken.mp4", "status": "failed", "reason": "decode: timeout"}]
    assert [entry["path"] for entry in report["clips"]] == ["good.mp4"]
    assert report["summary"]["with_truth"] == 0

    page = Page(tmp_path)
    assert "broken.mp4" in page.section("failures") and "decode: timeout" in page.section("failures")
    assert not re.search("fight|%", page.section("failures"), re.IGNORECASE)
    assert "broken.mp4" not in page.section("list")


def test_failed_clip_without_reason_says_so(tmp_path: Path) -> None:
    write_report(tmp_path, [failed(reason="")], INFO)
    assert rows_of(tmp_path)[0]["reason"] == "no reason was recorded"
    assert "No clip could be looked at" in Page(tmp_path).source


@pytest.mark.parametrize("start", list("=+-@\t\r\n＝"))
def test_text_cells_never_begin_a_formula(tmp_path: Path, start: str) -> None:
    info = replace(INFO, labels=(start + "1", "noFight"), positive_label="noFight")
    bad = clip(start + "1+1", label=start + "1", reason=start + "2")
    write_report(tmp_path, [bad], info)
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as handle:
        cells = [cell for row in csv.reader(handle) for cell in row]
    assert not [cell for cell in cells if cell.startswith(start)]
    assert "'" + start + "1+1" in cells


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_inert_and_kept(tmp_path: Path, name: str) -> None:
    write_report(tmp_path, [clip("x/" + name, reason=name), failed("y/" + name, reason=name)], INFO)
    assert len(rows_of(tmp_path)) == 2
    assert rows_of(tmp_path)[0]["path"] == "x/" + name.encode("utf-8", "backslashreplace").decode()
    report = json_of(tmp_path)
    assert (report["clips"][0]["path"], report["failures"][0]["path"]) == ("x/" + name, "y/" + name)

    page = Page(tmp_path)
    assert len(page.all("script")) == 1 and not page.all("img")
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", page.source)


def test_hostile_labels_and_model_facts_are_inert(tmp_path: Path) -> None:
    evil = '"><script>alert(1)</script>'
    info = replace(INFO, labels=(evil, "ok"), positive_label=evil, source=evil, created=evil, model={evil: evil})
    write_report(tmp_path, [clip(label=evil, truth="ok")], info)
    page = Page(tmp_path)
    assert len(page.all("script")) == 1
    assert page.all("tr")[1]["data-label"] == evil


def test_page_loads_nothing_from_outside(tmp_path: Path) -> None:
    write_report(tmp_path, [clip(thumbnails=(JPEG, JPEG), thumbnail_times=(0.0, 1.25))], INFO)
    page = Page(tmp_path)
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page.source)
    links = [attributes.get(key) for _, attributes in page.elements for key in ("src", "href") if key in attributes]
    assert links and all(str(link).startswith(("data:image/jpeg;base64,", "#")) for link in links)
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy and "default-src 'none'" in policy and "img-src data:" in policy and "*" not in policy


def test_page_shows_pictures_with_their_times(tmp_path: Path) -> None:
    write_report(tmp_path, [clip(thumbnails=(JPEG, JPEG), thumbnail_times=(0.0, 1.25))], INFO)
    assert [image["title"] for image in Page(tmp_path).all("img")] == ["0.00 s", "1.25 s"]
    assert all(image["alt"] and image["loading"] == "lazy" for image in Page(tmp_path).all("img"))


def test_page_ranks_by_the_positive_label_and_says_how_it_is_sorted(tmp_path: Path) -> None:
    write_report(tmp_path, [clip("low.mp4", 0.1), clip("high.mp4", 0.8), clip("mid.mp4", 0.4)], INFO)
    page = Page(tmp_path)
    assert [row["data-score"] for row in page.all("tr")[1:]] == ["0.8", "0.4", "0.1"]
    (header,) = [th for th in page.all("th") if th.get("aria-sort") == "descending"]
    assert header["data-sort"] == "score"


def test_partial_clip_is_marked(tmp_path: Path) -> None:
    write_report(tmp_path, [clip(status="partial", reason="62 of 100 % decoded"), clip("b.mp4")], INFO)
    assert [row["data-status"] for row in Page(tmp_path).all("tr")[1:]] == ["partial", "ok"]
    assert "62 of 100 % decoded" in Page(tmp_path).section("list")


def test_truth_gives_right_wrong_and_accuracy(tmp_path: Path) -> None:
    clips = [
        clip("right.mp4", 0.9, truth="fight"),
        clip("false-alarm.mp4", 0.8, truth="noFight"),
        clip("missed.mp4", 0.1, truth="fight"),
        clip("foreign.mp4", 0.2, truth="dancing"),
        clip("unknown.mp4", 0.3),
    ]
    summary = summarise(clips, INFO)
    assert (summary.with_truth, summary.correct, summary.missed, summary.false_alarms) == (3, 1, 1, 1)
    write_report(tmp_path, clips, INFO)
    assert [entry["correct"] for entry in json_of(tmp_path)["clips"]] == [True, False, False, None, None]
    assert "Accuracy 33 %" in Page(tmp_path).source
    assert [row.get("data-result") for row in Page(tmp_path).all("tr")[1:]] == ["right", "wrong", None, None, "wrong"]


def test_no_truth_no_accuracy(tmp_path: Path) -> None:
    write_report(tmp_path, [clip()], INFO)
    assert json_of(tmp_path)["summary"]["accuracy"] is None
    assert "Accuracy" not in Page(tmp_path).section("list") and "known label" not in Page(tmp_path).source


def test_json_round_trips_and_is_strict(tmp_path: Path) -> None:
    model = {"auc": {"value": np.float32(0.5), "low": float("nan")}, "clips": np.int64(160), "file": Path("runs/x")}
    write_report(tmp_path, [clip("a.mp4", 0.25)], replace(INFO, model=model))
    text = (tmp_path / "report.json").read_text(encoding="utf-8")
    report = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert report["schema"] == 1 and report["labels"] == ["fight", "noFight"] and report["threshold"] == 0.4
    assert report["model"] == {"auc": {"value": 0.5, "low": None}, "clips": 160, "file": "runs/x"}
    assert report["clips"][0]["probabilities"] == {"fight": 0.25, "noFight": 0.75}


def test_many_classes_show_five_bars_with_the_positive_one_among_them(tmp_path: Path) -> None:
    labels = tuple("abcdefg")
    probs = (0.3, 0.2, 0.15, 0.13, 0.1, 0.07, 0.05)
    info = replace(INFO, labels=labels, positive_label="g")
    write_report(tmp_path, [clip(label="a", probs=probs)], info)
    bars = [attributes["title"] for attributes in Page(tmp_path).all("bdi") if "title" in attributes]
    assert bars == ["a", "b", "c", "d", "g"]


def test_model_without_a_positive_label_still_reports(tmp_path: Path) -> None:
    write_report(tmp_path, [clip()], replace(INFO, positive_label=""))
    assert json_of(tmp_path)["summary"]["flagged"] == 0 and "Flagged" not in Page(tmp_path).source


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({}, "No evaluation is stored"),
        ({"groups_known": False, "roc_auc": {"value": 0.9}}, "The figures may be too good"),
        ({"groups_known": True, "roc_auc": {"value": 0.9}}, "never on both sides of the split"),
    ],
)
def test_page_states_the_limits_of_the_evaluation(tmp_path: Path, model: dict, sentence: str) -> None:
    write_report(tmp_path, [clip()], replace(INFO, model=model))
    assert sentence in Page(tmp_path).source


@pytest.mark.parametrize(
    "changes",
    [{"label": "dance"}, {"label": ""}, {"probs": (1.0,)}, {"probs": (float("nan"), 0.5)}, {"status": "fine"}],
    ids=str,
)
def test_clip_that_does_not_fit_is_refused_by_name(tmp_path: Path, changes: dict) -> None:
    with pytest.raises(ValueError, match=r"a\.mp4"):
        write_report(tmp_path, [clip(**changes)], INFO)
    assert not list(tmp_path.iterdir())


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(tmp_path, [clip("old.mp4")], INFO)
    before = (tmp_path / "report.html").read_bytes()
    monkeypatch.setattr("hazard.report.percent", lambda share: 1 / 0)  # the page breaks half-way
    with pytest.raises(ZeroDivisionError):
        write_report(tmp_path, [clip("new.mp4")], INFO)
    assert (tmp_path / "report.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["predictions.csv", "report.html", "report.json"]


def test_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentStopped, match=r"cannot write the report to .*file"):
        write_report(tmp_path / "file" / "report", [clip()], INFO)


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.0004, "<1 %"), (0.5, "50 %"), (0.9996, ">99 %"), (1.0, "100 %")]
)
def test_percent_never_rounds_to_certainty(share: float, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(("seconds", "text"), [(4.84, "4.8 s"), (65, "1:05"), (3723, "1:02:03")])
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text
