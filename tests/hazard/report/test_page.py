"""report.html: its source is safe, its data is complete, and its size is limited."""

import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hazard.report import page_plan
from hazard.report.writer import write_report
from hazard.types import ClipPrediction
from tests.helpers.data.predictions import (
    HOSTILE_NAMES,
    INFO,
    JPEG,
    make_clip,
    make_failed_clip,
    make_long_clip,
    page_details,
    page_meta,
    page_pictures,
    page_rows,
    write_test_report,
)

EVALUATION = {
    "clips": 3,
    "accuracy": {"value": 0.67, "low": 0.4, "high": 0.9},
    "f1": 0.5,
    "confusion": {"labels": ["fight", "noFight"], "counts": [[1, 1], [0, 1]]},
    "per_class": {"fight": {"precision": 1.0, "recall": 0.5, "f1": 0.67, "clips": 2}},
    "events": {
        "truth": 10, "found": 9, "recall": 0.9, "false_alarms": 2, "hours": 3.1, "false_alarms_per_hour": 0.65,
        "delay_seconds": {"median": 1.2, "p90": 2.0},
        "missed": [{"path": "a.mp4", "label": "fight", "start": 1.0, "end": None}],
    },
    "worst": [{"path": "a.mp4", "truth": "fight", "label": "noFight", "probability": 0.9}],
}  # fmt: skip


class Page(HTMLParser):
    """The elements of a page's source, with their attributes."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.source = (folder / "report.html").read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def text(self, section: str) -> str:
        found = re.search(rf'<section id="{section}".*?</section>', self.source, re.DOTALL)
        return re.sub(r"<[^>]*>|\s+", " ", found.group()) if found else ""

    @property
    def run_scripts(self) -> int:
        """Scripts that a browser runs, as opposed to data."""
        return sum(attributes.get("type") is None for attributes in self.all("script"))


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_hostile_names_are_inert_and_kept(tmp_path: Path, name: str) -> None:
    hostile = make_clip("x/" + name, reason=name, zero_shot=((name, 0.5),), truth=name)
    write_test_report(tmp_path, [hostile, make_failed_clip("y/" + name, reason=name)], replace(INFO, source=name))
    page = Page(tmp_path)
    assert page.run_scripts == 1 and not page.all("img")
    assert not [key for _, attributes in page.elements for key in attributes if key.startswith("on")]
    assert not re.search("[\u2028\u202a-\u202e\u2066-\u2069\x00\x1b]", page.source)
    assert (page_rows(tmp_path)[0]["p"], page_rows(tmp_path)[0]["z"]) == ("x/" + name, name)
    assert page_meta(tmp_path)["failures"] == [["y/" + name, name]]


def test_hostile_labels_and_model_facts_are_inert(tmp_path: Path) -> None:
    evil = '"></script><script>alert(1)</script><!--clips-->'
    info = replace(
        INFO, labels=(evil, "ok"), positive_label=evil, source=evil, created=evil, model={evil: evil}, rules=()
    )
    evaluation = {evil: 0.5, "confusion": {"labels": [evil, "ok"], "counts": [[1, 0], [0, 1]]}, "per_class": {evil: {}}}
    write_test_report(tmp_path, [make_clip(label=evil, truth="ok", events=())], info, evaluation=evaluation)
    assert Page(tmp_path).run_scripts == 1
    assert page_meta(tmp_path)["labels"] == [evil, "ok"]
    assert evil in [option["value"] for option in Page(tmp_path).all("option")]


def test_page_loads_nothing_from_outside(tmp_path: Path) -> None:
    write_test_report(
        tmp_path, [make_clip(thumbnails=(JPEG, JPEG), thumbnail_times=(0.0, 1.25))], evaluation=EVALUATION
    )
    page = Page(tmp_path)
    outside = re.findall(r"https?:[^\"' ]*|//[a-z][^\"' ]*\.[a-z]|@import|url\(", page.source)
    assert outside == ["http://www.w3.org/2000/svg"]  # the name of SVG's elements, nothing is fetched
    links = [attributes[key] for _, attributes in page.elements for key in ("src", "href") if key in attributes]
    assert links and all(str(link).startswith("#") for link in links)
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy and "default-src 'none'" in policy and "img-src data:" in policy and "*" not in policy


def test_page_without_scripts_points_to_the_tables(tmp_path: Path) -> None:
    write_test_report(tmp_path, [make_clip()])
    found = re.search("<noscript>.*?</noscript>", Page(tmp_path).source)
    assert found and "predictions.csv" in found.group()


def test_summary_is_in_plain_words(tmp_path: Path) -> None:
    clips = [
        make_long_clip([0.9, 0.1, 0.1, 0.9], "a.mp4"),
        make_clip("b.mp4", 0.2, unknown_score=9.0),
        make_failed_clip("c.mp4"),
    ]
    write_test_report(tmp_path, clips)
    source = Page(tmp_path).source
    assert "2 events in 1 of 2 clips" in source
    assert "1 clip could not be analysed" in source and "1 clip is not known to the model" in source
    write_test_report(tmp_path, [make_clip("b.mp4", 0.2)])
    assert "No event in 1 clip" in Page(tmp_path).source
    write_test_report(tmp_path, [make_failed_clip("c.mp4")])
    assert "No clip could be analysed" in Page(tmp_path).source


def test_rows_say_what_is_to_be_shown(tmp_path: Path) -> None:
    clips = [
        make_clip("false-alarm.mp4", 0.8, truth="noFight"),
        make_clip("foreign.mp4", 0.2, truth="dancing"),
        make_clip("partial.mp4", 0.2, status="partial", reason="62 of 100 % decoded"),
        make_clip("right.mp4", 0.9, truth="fight"),
        make_clip("unknown.mp4", 0.3, unknown_score=4.0, zero_shot=(("dancing", 0.6),)),
    ]
    write_test_report(tmp_path, clips)
    rows = {row["p"]: row for row in page_rows(tmp_path)}
    assert {path: (row.get("w"), row.get("k")) for path, row in rows.items()} == {
        "false-alarm.mp4": (1, 1), "foreign.mp4": (None, None), "partial.mp4": (None, None), "right.mp4": (None, 1),
        "unknown.mp4": (None, None),
    }  # fmt: skip
    assert (rows["partial.mp4"]["h"], rows["partial.mp4"]["r"]) == (1, "62 of 100 % decoded")
    assert (rows["unknown.mp4"]["u"], rows["unknown.mp4"]["z"]) == (1, "dancing")
    assert rows["right.mp4"]["e"] == [[0, 0.0, 2.0, 0.9, 0.9]]
    assert "Accuracy 50 %" in Page(tmp_path).source


def test_no_truth_no_accuracy(tmp_path: Path) -> None:
    write_test_report(tmp_path, [make_clip()])
    assert "Accuracy" not in Page(tmp_path).source and not Page(tmp_path).text("evaluation")


def test_evaluation_is_told(tmp_path: Path) -> None:
    write_test_report(
        tmp_path, [make_clip("a.mp4", 0.1, truth="fight"), make_clip("b.mp4", truth="fight")], evaluation=EVALUATION
    )
    text = " ".join(Page(tmp_path).text("evaluation").split())
    for words in (
        "0.67",
        "9 of 10 true events found",
        "(90 %)",
        "2 false alarms",
        "3 h 6 min",
        "0.65 per hour",
        "1.2 s after",
    ):
        assert words in text
    meta = page_meta(tmp_path)
    assert meta["worst"] == EVALUATION["worst"] and meta["missed"][0]["end"] is None


@pytest.mark.parametrize(
    "evaluation", [{"accuracy": None}, {"events": {}}, {"confusion": None, "worst": []}, {"f1": 1}]
)
def test_evaluation_may_lack_anything(tmp_path: Path, evaluation: dict) -> None:
    write_test_report(tmp_path, [make_clip()], evaluation=evaluation)
    assert Page(tmp_path).text("evaluation")


def test_many_classes_show_five_bars_with_the_positive_one_among_them(tmp_path: Path) -> None:
    probs = (0.3, 0.2, 0.15, 0.13, 0.1, 0.07, 0.05)
    info = replace(INFO, labels=tuple("abcdefg"), positive_label="g", rules=())
    write_test_report(tmp_path, [make_clip(label="a", probs=probs, windows=None, events=())], info)
    assert [info.labels[bar[0]] for bar in page_details(tmp_path)[0]["b"]] == ["a", "b", "c", "d", "g"]


def test_model_without_a_positive_label_still_reports(tmp_path: Path) -> None:
    write_test_report(tmp_path, [make_clip(events=())], replace(INFO, positive_label="", rules=()))
    assert page_meta(tmp_path)["positive"] == -1 and "flagged" not in Page(tmp_path).source.split("<script")[0]


FEW = {"target": 1.0, "threshold": 0.64, "recall": 0.9, "achieved": 0.0, "false_alarms": 0.0, "hours": 40 / 3600}
FEW |= {"upper_bound": 269.6, "supported": False}


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ({}, "No evaluation is stored"),
        ({"groups_known": False, "roc_auc": {"value": 0.9}}, "The metrics may be inflated"),
        ({"groups_known": True, "roc_auc": {"value": 0.9}}, "never on both sides of the split"),
        ({"duplicate_pairs": 3}, "3 pairs of near-duplicate clips"),
        ({"operating_points": [{"threshold": 0.64, "recall": 0.9, "achieved": 1.5}]}, "1.5 false alarms per hour"),
        (
            {"operating_points": [FEW]},
            "0 false alarms in 40 s of harmless video (one decision per clip): too little to",
        ),
        ({"operating_points": [FEW | {"supported": True}]}, "0 per hour, and with 95 % confidence at most 270."),
    ],
)
def test_page_states_the_limits_of_the_evaluation(tmp_path: Path, model: dict, sentence: str) -> None:
    write_test_report(tmp_path, [make_clip()], replace(INFO, model=model))
    assert sentence in " ".join(Page(tmp_path).text("model").split())


def test_long_curves_are_thinned_and_keep_their_peaks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.2, 20_000)
    peaks = rng.choice(20_000, 12, replace=False)
    p[peaks] = rng.uniform(0.8, 0.99, 12)
    write_test_report(tmp_path, [make_long_clip(p.tolist())])
    (detail,) = page_details(tmp_path)
    drawn = dict(zip(detail["t"], detail["c"][0][1], strict=True))
    assert detail["n"] == 20_000 and len(drawn) == detail["q"] <= page_plan.MAX_CURVE_POINTS
    assert all(drawn[100 * i + 50] == round(10_000 * p[i]) for i in peaks.tolist())
    assert {detail["t"][0], detail["t"][-1]} == {50, 1_999_950}


def with_pictures(count: int, size: int) -> list[ClipPrediction]:
    pictures = tuple(bytes([number]) * size for number in range(12))
    times = tuple(float(number) for number in range(12))
    made = (
        make_long_clip([0.1] * 8 + [0.9 if number % 4 == 0 else 0.1] + [0.1] * 3, f"{number:03}.mp4")
        for number in range(count)
    )
    return [replace(each, thumbnails=pictures, thumbnail_times=times) for each in made]


def test_all_pictures_are_there_while_there_is_room(tmp_path: Path) -> None:
    write_test_report(tmp_path, with_pictures(4, 30))
    assert [len(pictures) for pictures in page_pictures(tmp_path)] == [12] * 4
    assert page_details(tmp_path)[0]["k"] == list(range(12))
    assert "limited to" not in Page(tmp_path).source


def test_pictures_are_limited_and_clips_with_events_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_plan, "MAX_THUMBNAIL_BYTES", 50_000)
    write_test_report(tmp_path, with_pictures(40, 300))
    counts = [len(pictures) for pictures in page_pictures(tmp_path)]
    assert set(counts[::4]) == {6} and {n for i, n in enumerate(counts) if i % 4} == {1}
    assert sum(len(p) for pictures in page_pictures(tmp_path) for p in pictures) <= 50_000
    assert 8.0 in page_details(tmp_path)[0]["k"], "the frame nearest to the event is shown"
    assert "limited to" in Page(tmp_path).source


def test_numbers_are_there_even_without_room_for_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_plan, "MAX_THUMBNAIL_BYTES", 1_000)
    write_test_report(tmp_path, with_pictures(8, 300))
    assert sum(map(len, page_pictures(tmp_path))) == 2 and len(page_rows(tmp_path)) == 8
    assert "6 clips have none" in Page(tmp_path).source


def test_page_lists_only_so_many_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_plan, "MAX_PAGE_CLIPS", 10)
    monkeypatch.setattr(page_plan, "MAX_PAGE_FAILURES", 2)

    def clips() -> Iterator[ClipPrediction]:
        for number in range(100):
            yield (
                make_failed_clip(f"{number:03}.mp4")
                if number % 10 == 0
                else make_clip(f"{number:03}.mp4", 0.9 if number == 77 else 0.3)
            )

    write_report(tmp_path, clips, INFO)
    paths = [row["p"] for row in page_rows(tmp_path)]
    assert (
        len(paths) == 10
        and "077.mp4" in paths
        and [row["i"] for row in page_rows(tmp_path)] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 77]
    )
    assert len(page_meta(tmp_path)["failures"]) == 2
    text = " ".join(Page(tmp_path).source.split())
    assert "The page lists 10 of 90 clips" in text and "The first 2 are listed" in text
