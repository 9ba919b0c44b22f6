"""report.html in a real browser: lists, filters, sorting, clip pages, marks and printing."""

import csv
import io
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from hazard.report.tables import unescape_formula
from hazard.utils.text import escape_hidden, format_clock, format_percent
from tests.helpers.chromium import CHROMIUM, MISSING, Tab, browser
from tests.helpers.data.predictions import (
    HOSTILE_NAMES,
    INFO,
    make_clip,
    make_failed_clip,
    make_long_clip,
    write_test_report,
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
PICTURE = cv2.imencode(".jpg", np.full((24, 32, 3), 99, np.uint8))[1].tobytes()
SHORT = {"thumbnails": (PICTURE, PICTURE), "thumbnail_times": (0.0, 1.25)}
ATTENTION = {"attention": (0.2, 0.8), "attention_times": (0.5, 1.5)}
WORST = [{"path": "b/wrong.mp4", "truth": "fight", "label": "noFight", "probability": 0.8}]


@pytest.fixture(scope="module")
def tab() -> Iterator[Tab]:
    with browser() as opened:
        yield opened


@pytest.fixture
def page(tab: Tab, tmp_path: Path) -> Tab:
    clips = [
        *(make_clip(f"a/{name}", 0.9, reason=name, **SHORT) for name in HOSTILE_NAMES),
        make_clip("b/wrong.mp4", 0.2, truth="fight", **SHORT),
        make_clip("c/strange.mp4", 0.1, unknown_score=5.0, zero_shot=(("dancing", 0.61),), **ATTENTION),
        make_clip("d/partial.mp4", 0.3, status="partial", reason="62 % decoded"),
        make_long_clip([0.1, 0.1, 0.95, 0.9, 0.1, 0.1, 0.1, 0.7, 0.1], "e/long.mp4#t=10,19", **SHORT),
        *(make_clip(f"f/{number}.mp4", 0.01 * number) for number in range(60)),
        *(make_failed_clip(f"z/{name}", reason=name) for name in HOSTILE_NAMES),
    ]  # fmt: skip
    write_test_report(
        tmp_path, clips, replace(INFO, source=HOSTILE_NAMES[6]), evaluation={"accuracy": 0.5, "worst": WORST}
    )
    tab.complaints.clear()
    tab.set_size(1280, 900)
    tab.open((tmp_path / "report.html").as_uri())
    tab.evaluate("localStorage.clear()")
    tab.open((tmp_path / "report.html").as_uri())
    return tab


def settle(tab: Tab) -> None:
    tab.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 20)))")


def choose(tab: Tab, field: str, value: str) -> int:
    """Set a filter; return the number of rows left on the first page."""
    change(tab, f"document.getElementById({field!r})", value, "input")
    return tab.evaluate("document.querySelectorAll('#clips tbody tr').length")


def change(tab: Tab, field: str, value: str, event: str) -> None:
    tab.evaluate(f"(() => {{ const f = {field}; f.value = {value!r}; f.dispatchEvent(new Event({event!r})) }})()")


def open_clip(tab: Tab, path: str) -> None:
    number = tab.evaluate(f"clipByPath.get({path!r}).number")
    tab.evaluate(f"location.hash = 'clip={number}'")
    settle(tab)


def text(tab: Tab, selector: str) -> str:
    return tab.evaluate(f"document.querySelector({selector!r}).innerText")


def test_hostile_names_are_shown_written_out_and_do_nothing(page: Tab) -> None:
    shown = page.evaluate("[...document.querySelectorAll('#clips tbody th .name')].map((e) => e.textContent)")
    assert {escape_hidden("a/" + name) for name in HOSTILE_NAMES} <= set(shown)
    page.evaluate("document.getElementById('more-failures').click()")
    lost = page.evaluate("[...document.querySelectorAll('#failure-list .why')].map((e) => e.textContent)")
    assert lost == [escape_hidden(name) for name in HOSTILE_NAMES]
    assert page.evaluate("document.querySelectorAll('main script, img:not([src^=data]), [onerror]').length") == 0
    for name in HOSTILE_NAMES:
        page.evaluate(f"location.hash = 'clip=' + clips.find((c) => c.order === {HOSTILE_NAMES.index(name)}).number")
        settle(page)
        assert escape_hidden(name).rpartition("/")[2] in text(page, "#detail h2")
    assert page.complaints == []


def test_script_and_python_write_alike(page: Tab) -> None:
    names = [*HOSTILE_NAMES, "a\u200db\u00ad\ufeff", "".join(map(chr, range(0x250)))]
    for name in names:
        units = np.frombuffer(name.encode("utf-16-le", "surrogatepass"), np.uint16).tolist()
        assert page.evaluate(f"readable(String.fromCharCode(...{units}))") == escape_hidden(name)
    for share in (0.0, 0.004, 0.42, 0.996, 1.0):
        assert page.evaluate(f"percent({share})") == format_percent(share)
    for seconds in (0.0, 4.84, 59.97, 65.0, 3723.0):
        assert page.evaluate(f"clock({seconds})") == format_clock(seconds)


def test_table_is_filtered_and_sorted_and_says_so(page: Tab) -> None:
    everything = 60 + 4 + len(HOSTILE_NAMES)
    assert text(page, "#count") == f"{everything} clips"
    assert page.evaluate("document.querySelector('[aria-sort]').dataset.sort") == "score"
    assert choose(page, "filter-text", "F/5 .MP4") == 11
    assert text(page, "#count") == f"11 of {everything} clips"
    page.evaluate("document.getElementById('clear').click()")
    assert [choose(page, "filter-show", kind) for kind in ("unknown", "partial", "wrong")] == [1, 1, 1]
    assert choose(page, "filter-show", "events") == len(HOSTILE_NAMES) + 1 + 20  # f/40 to f/59 too
    assert choose(page, "filter-text", "no such clip") == 0
    assert page.evaluate("!document.getElementById('no-match').hidden")
    page.evaluate("document.getElementById('clear').click()")
    page.evaluate("document.querySelector('[data-sort=name] button').click()")
    assert page.evaluate("document.querySelector('[data-sort=name]').getAttribute('aria-sort')") == "ascending"
    page.evaluate("document.getElementById('page-on').click()")
    names = page.evaluate("[...document.querySelectorAll('#clips tbody .name')].map((e) => e.textContent)")
    assert len(names) == everything - 50 and names[-1] == "f/59.mp4"
    assert 0 < float(page.evaluate("document.documentElement.dataset.readyMs")) < 20_000


def test_events_stand_first_and_lead_to_their_clip(page: Tab) -> None:
    assert page.evaluate(
        "document.getElementById('events').compareDocumentPosition(document.getElementById('list')) & 4"
    )
    first = text(page, "#event-table tbody tr")
    assert "long.mp4" in first and "2.0 – 4.0 s" in first and "95 %" in first
    page.evaluate("document.querySelector('#event-table tbody a').click()")
    settle(page)
    assert "long.mp4" in text(page, "#detail h2")


def test_detail_page_tells_all_and_back_returns_to_the_row(page: Tab) -> None:
    page.evaluate("document.querySelector('#clips a[href]').focus()")
    before = page.evaluate("document.querySelector('#clips tbody a').getAttribute('href')")
    page.evaluate("document.querySelector('#clips tbody a').click()")
    settle(page)
    assert page.evaluate("document.activeElement.tagName") == "H2"
    assert page.evaluate("document.title") != page.evaluate("meta.title") and page.evaluate(
        "document.getElementById('overview').hidden"
    )
    page.evaluate("history.back()")
    settle(page)
    assert page.evaluate("document.title === meta.title && document.getElementById('detail').hidden")
    assert page.evaluate("document.activeElement.getAttribute('href')") == before
    open_clip(page, "c/strange.mp4")
    shown = text(page, "#detail")
    assert "Not known to the model" in shown and "CLIP (zero-shot): dancing 61 %" in shown
    assert page.evaluate("document.querySelectorAll('.attention .steps i').length") == 2
    open_clip(page, "b/wrong.mp4")
    assert "Wrong: the true label is fight" in text(page, "#detail")
    open_clip(page, "d/partial.mp4")
    assert "Partly read" in text(page, "#detail") and "62 % decoded" in text(page, "#detail")
    page.evaluate("document.querySelector('[rel=next]').click()")
    settle(page)
    assert "d/partial" not in text(page, "#detail h2")
    assert page.complaints == []


def test_curve_is_read_by_keyboard(page: Tab) -> None:
    open_clip(page, "e/long.mp4#t=10,19")
    readings = []
    for key in ("Home", "ArrowRight", "PageDown", "PageDown", "End"):
        pressed = f"new KeyboardEvent('keydown', {{key: {key!r}, bubbles: true}})"
        page.evaluate(f"document.querySelector('.plot').dispatchEvent({pressed})")
        readings.append(page.evaluate("document.querySelector('.plot').getAttribute('aria-valuetext')"))
    assert readings == [
        "0.5 s: fight 10 %", "1.5 s: fight 10 %", "2.5 s: fight 95 %, event fight", "7.5 s: fight 70 %, event fight",
        "8.5 s: fight 10 %",
    ]  # fmt: skip
    assert page.evaluate("document.querySelectorAll('.chart .band').length") == 2
    assert page.evaluate("document.querySelectorAll('.strip .now').length") == 1


def test_marks_become_a_manifest_and_are_kept(page: Tab) -> None:
    page.evaluate("setMark(markTarget(clips.find((c) => c.path.endsWith('A1'))), 'noFight')")
    open_clip(page, "b/wrong.mp4")
    page.evaluate("document.querySelector('.review-card input[value=wrong]').click()")
    assert page.evaluate("document.querySelector('.review-card select').value") == "fight"
    open_clip(page, "d/partial.mp4")
    page.evaluate("document.querySelector('.review-card input[value=right]').click()")
    open_clip(page, "e/long.mp4#t=10,19")
    page.evaluate("document.querySelectorAll('.events-card input[value=right]')[0].click()")
    page.evaluate("document.querySelectorAll('.events-card input[value=wrong]')[1].click()")
    change(page, "document.querySelectorAll('.events-card select')[1]", "", "change")
    page.evaluate("document.querySelector('.review-card input[value=right]').click()")
    expected = [
        ["a/=cmd|' /C calc'!A1", "noFight", "", ""],
        ["b/wrong.mp4", "fight", "", ""],
        ["d/partial.mp4", "noFight", "", ""],
        ["e/long.mp4", "fight", "10", "19"],
        ["e/long.mp4", "fight", "12", "14"],
        ["e/long.mp4", "", "17", "18"],
    ]
    assert list(csv.reader(io.StringIO(page.evaluate("correctionsCsv()")))) == [
        ["path", "label", "start", "end"],
        *expected,
    ]
    assert text(page, "#review-count") == "6 marked, 3 of them wrong"
    page.call("Page.reload")
    settle(page)
    while page.evaluate("document.readyState") != "complete":
        settle(page)
    assert text(page, "#review-count").startswith("6 marked")
    open_clip(page, "b/wrong.mp4")
    assert page.evaluate("document.querySelector('.review-card input[value=wrong]').checked")
    page.evaluate("[...document.querySelectorAll('.review-card .quiet')].at(-1).click()")
    assert text(page, "#review-count").startswith("5 marked")


@pytest.mark.parametrize("path", ["=1+1.mp4", "'=1.mp4", "a,b.mp4", 'quote".mp4', "line\nbreak.mp4", "@x", "plain.mp4"])
def test_paths_survive_the_escaping_of_corrections(page: Tab, path: str) -> None:
    page.evaluate("marks.clear()")
    page.evaluate(f"setMark({{path: {path!r}, start: null, end: null, said: 'fight'}}, 'fight')")
    (row,) = csv.DictReader(io.StringIO(page.evaluate("correctionsCsv()"), newline=""))
    assert unescape_formula(row["path"]) == path and not row["path"].startswith(("=", "@"))


def test_page_works_where_storage_is_refused(tab: Tab, tmp_path: Path) -> None:
    write_test_report(tmp_path, [make_clip(**SHORT)])
    no_storage = "Object.defineProperty(window, 'localStorage', {get() { throw new Error('refused') }})"
    script = tab.call("Page.addScriptToEvaluateOnNewDocument", source=no_storage)["identifier"]
    tab.complaints.clear()
    tab.open((tmp_path / "report.html").as_uri() + "#clip=0")
    tab.evaluate("document.querySelector('.review-card input[value=right]').click()")
    assert "does not store marks" in text(tab, "#review-count")
    assert tab.complaints == []
    tab.call("Page.removeScriptToEvaluateOnNewDocument", identifier=script)


@pytest.mark.parametrize("width", [390, 820, 1280])
def test_nothing_is_wider_than_the_screen(page: Tab, width: int) -> None:
    page.set_size(width, 800)
    page.open(page.evaluate("location.href.split('#')[0]"))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for path in ("e/long.mp4#t=10,19", "c/strange.mp4"):
        open_clip(page, path)
        assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_print_holds_every_filtered_clip_and_the_details_of_events(page: Tab) -> None:
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.querySelectorAll('#paper-table tbody tr').length") == 64 + len(HOSTILE_NAMES)
    assert page.evaluate("document.querySelectorAll('#paper h3.clip-title').length") == len(HOSTILE_NAMES) + 21
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.querySelectorAll('#paper *').length") == 0
    choose(page, "filter-show", "unknown")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert "Not known to the model" in page.evaluate("document.getElementById('paper-table').textContent")
    assert page.evaluate("document.querySelectorAll('#paper-table tbody tr').length") == 1
    assert b64decode(page.call("Page.printToPDF")["data"]).startswith(b"%PDF")


def test_worst_mistakes_lead_to_their_clips(page: Tab) -> None:
    assert page.evaluate("document.querySelectorAll('#worst img').length") == 2
    page.evaluate("document.querySelector('#worst a').click()")
    settle(page)
    assert "wrong.mp4" in text(page, "#detail h2")


def test_download_is_a_file_called_corrections(page: Tab, tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    page.evaluate("setMark(markTarget(clips[0]), 'noFight')")
    page.evaluate("document.getElementById('review-download').click()")
    for _ in range(100):
        if (folder / "corrections.csv").is_file():
            break
        settle(page)
    assert (folder / "corrections.csv").read_text().startswith("path,label,start,end\n")
    assert page.complaints == []
