"""The page of `hazard serve` in a real browser: upload, progress, player, timeline, downloads."""

import csv
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import pytest

from hazard.synthetic.clips import draw_clip
from hazard.synthetic.recordings import draw_recording
from tests.helpers.chromium import CHROMIUM, MISSING

pytest.importorskip("fastapi", reason="pip install '.[serve]'")
pytest.importorskip("playwright.sync_api", reason="pip install playwright")
pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install axe-playwright-python")

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pydantic import SecretStr

from hazard.web.app import create_app
from hazard.web.server import open_listener, serve, server_url
from tests.helpers.servers.served import RunningServer, run_server

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
PATIENCE_MS = 30_000
TOKEN = "0123456789abcdef-token"
THRESHOLD = 0.507
"""A threshold that some windows of the video below reach and others do not."""
HOSTILE = '<img src=x onerror=alert(1)>"\u202e&lt;.mp4'
DESKTOP, PHONE = (1280, 860), (360, 740)


@pytest.fixture(scope="module")
def served(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    judging = {"threshold": THRESHOLD, "leave": THRESHOLD}
    models = {"first": small_model, "second": small_model}
    with run_server(models, tmp_path_factory.mktemp("data"), infer=judging) as server:
        yield server


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("video") / "door camera.mp4"
    draw_recording(file, events=[(3.0, 6.0, "fight")], seconds=12, seed=3)
    return file


@pytest.fixture(scope="module")
def done(served: RunningServer, video: Path) -> dict[str, Any]:
    """A job with an event."""
    job = served.client.post("/jobs", files={"video": video.read_bytes()}).json()
    return served.wait_until_finished(job["id"])


@pytest.fixture(scope="module")
def broken(served: RunningServer) -> dict[str, Any]:
    """A job that failed."""
    job = served.client.post("/jobs", files={"video": ("notes.mp4", b"These are notes, no film. " * 9)}).json()
    return served.wait_until_finished(job["id"])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


Opened = Callable[..., Any]


@pytest.fixture
def opened(browser: Browser, served: RunningServer) -> Opened:
    """Open a page of the server. Errors and warnings in the browser's console fail the test."""

    @contextmanager
    def open_page(
        path: str,
        *,
        url: str = served.url,
        size: tuple[int, int] = DESKTOP,
        scheme: Any = "light",
        expected: str | None = None,
    ) -> Iterator[Page]:
        viewport: Any = {"width": size[0], "height": size[1]}
        context = browser.new_context(base_url=url, viewport=viewport, color_scheme=scheme)
        context.set_default_timeout(PATIENCE_MS)
        complaints: list[str] = []
        page = context.new_page()
        page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(path)
        yield page
        context.close()
        assert [text for text in complaints if expected is None or expected not in text] == []

    return open_page


def result_of(served: RunningServer, page: Page) -> dict[str, Any]:
    return served.client.get(page.url.removesuffix("/page").removeprefix(served.url) + "/result").json()


def segment_at(answer: dict[str, Any], time: float) -> int:
    spans = [(each["start"], each["end"]) for each in answer["segment_predictions"]]
    return next((i for i, (start, end) in enumerate(spans) if start <= time < end), len(spans) - 1)


def bars(page: Page) -> list[str]:
    """Return the labels of the bars as they are shown."""
    return page.locator(".bars-card .label-of").all_inner_texts()


def wait_for_film(page: Page) -> None:
    expect(page.get_by_role("slider", name="Position in the video")).to_be_visible(timeout=PATIENCE_MS)
    page.evaluate(
        "async () => { const v = document.querySelector('video');"
        "if (v.readyState < 2) await new Promise((done) => v.addEventListener('loadeddata', done, {once: true})); }"
    )


def settled(page: Page) -> float:
    """Return the playback position after seeking has ended."""
    return page.evaluate(
        "async () => { const v = document.querySelector('video');"
        "if (v.seeking) await new Promise((done) => v.addEventListener('seeked', done, {once: true}));"
        "await new Promise(requestAnimationFrame); return v.currentTime; }"
    )


def test_from_upload_to_download(served: RunningServer, opened: Opened, video: Path, tmp_path: Path) -> None:
    busy = draw_recording(tmp_path / "long.mp4", events=[(3.0, 6.0, "fight")], seconds=60, seed=4).with_name("long.mp4")
    served.client.post("/jobs", files={"video": busy.read_bytes()})  # so that the page's own job has to wait
    with opened("/") as page:
        page.set_input_files("#files", video)
        expect(page).to_have_url(re.compile("/jobs/"))
        expect(page.get_by_role("progressbar", name="Analysis progress")).to_be_visible()
        assert page.title().startswith("door camera.mp4")
        wait_for_film(page)
        answer = result_of(served, page)
        assert answer["events"]
        watch(page, answer)
        seek(page, answer)
        point(page, answer)
        take_along(page, answer, tmp_path)
        page.go_back()
        expect(page.locator("#history a", has_text="door camera.mp4").first).to_be_visible()


def watch(page: Page, answer: dict[str, Any]) -> None:
    """Check that the overlay shows the right segment at every frame of the video."""
    seen = page.evaluate(
        """async () => {
          const video = document.querySelector("video"), seen = [];
          video.muted = true;
          video.playbackRate = 4;
          const each = (_, frame) => {
            seen.push([frame.mediaTime, document.querySelector(".overlay").dataset.segment,
                       document.querySelector(".stage").classList.contains("in-event")]);
            video.requestVideoFrameCallback(each);
          };
          video.requestVideoFrameCallback(each);
          await video.play();
          await new Promise((done) => video.addEventListener("ended", done, {once: true}));
          return seen;
        }"""
    )
    (event,) = answer["events"]
    assert len(seen) > 10
    for time, segment, is_event in seen:
        assert int(segment) == segment_at(answer, time), time
        assert is_event == (event["start"] <= time < event["end"]), time
    assert {int(segment) for _, segment, _ in seen} >= {0, len(answer["segment_predictions"]) - 1}
    assert {is_event for _, _, is_event in seen} == {True, False}


def seek(page: Page, answer: dict[str, Any]) -> None:
    """Check that the timeline, its keys and the table of events seek, and that the bars follow."""
    slider, segments = page.get_by_role("slider", name="Position in the video"), answer["segment_predictions"]
    shown = []
    for share in (0.2, 0.75):
        box = slider.bounding_box()
        assert box
        slider.click(position={"x": box["width"] * share, "y": 40})
        time = settled(page)
        here = segments[segment_at(answer, time)]
        assert time == pytest.approx(share * answer["duration"], abs=1.5)
        assert float(slider.get_attribute("aria-valuenow") or "nan") == pytest.approx(time, abs=0.01)
        page.mouse.move(1, 1)
        expect(page.locator(".bars-card .label-of").first).to_have_text(here["top5"][0]["label"])
        expect(page.locator(".bars-card .fine")).to_contain_text(f"{here['start']:.1f} – {here['end']:.1f}")
        shown.append(page.locator(".bars-card").inner_text())
    assert shown[0] != shown[1]
    slider.focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert settled(page) == pytest.approx(segments[1]["start"], abs=0.05)
    page.keyboard.press("PageDown")
    (event,) = answer["events"]
    assert settled(page) == pytest.approx(event["start"], abs=0.05)
    assert "event hazardous" in (slider.get_attribute("aria-valuetext") or "")
    page.keyboard.press("Home")
    page.get_by_role("button", name="Go to event hazardous").click()
    assert settled(page) == pytest.approx(event["start"], abs=0.05)
    expect(page.locator(".events tr[aria-current]")).to_have_count(1)


def point(page: Page, answer: dict[str, Any]) -> None:
    """Check that pointing shows another segment without moving the playback position."""
    before = settled(page)
    slider = page.get_by_role("slider", name="Position in the video")
    slider.hover(position={"x": 100, "y": 100})
    expect(page.locator(".bars-card .fine")).to_contain_text("at the pointer")
    page.mouse.move(1, 1)
    expect(page.locator(".bars-card .fine")).to_contain_text("at the playback position")
    assert settled(page) == before


def take_along(page: Page, answer: dict[str, Any], folder: Path) -> None:
    for link, name in (("JSON", "door camera.json"), ("CSV", "door camera.csv")):
        with page.expect_download() as coming:
            page.get_by_role("link", name=link, exact=True).click()
        coming.value.save_as(folder / name)
    assert json.loads((folder / "door camera.json").read_text()) == answer
    with open(folder / "door camera.csv", newline="") as handle:
        assert len(list(csv.DictReader(handle))) == len(answer["segment_predictions"])
    page.get_by_role("button", name="Make annotated video").click()
    ready = page.get_by_role("link", name="Annotated video")
    expect(ready).to_be_visible(timeout=PATIENCE_MS)
    with page.expect_download() as coming:
        ready.click()
    coming.value.save_as(folder / "annotated.mp4")
    with av.open(str(folder / "annotated.mp4")) as opened:
        assert sum(1 for _ in opened.decode(video=0)) > 20


def test_several_at_once_and_what_is_no_video(served: RunningServer, opened: Opened, video: Path) -> None:
    good, bad = video.read_bytes(), b"no film at all " * 20
    files: list[Any] = [
        {"name": HOSTILE, "mimeType": "video/mp4", "buffer": good},
        {"name": "b.mp4", "mimeType": "video/mp4", "buffer": good},
        {"name": "bad.mp4", "mimeType": "video/mp4", "buffer": bad},
        {"name": "empty.mp4", "mimeType": "video/mp4", "buffer": b""},
    ]
    with opened("/") as page:
        page.set_input_files("#files", files)
        expect(page.locator("#uploads li", has_text="empty.mp4")).to_contain_text("The file is empty.")
        rows = page.locator("#history li")
        expect(rows.filter(has_text="bad.mp4")).to_contain_text("Analysis failed", timeout=PATIENCE_MS)
        hostile = rows.filter(has_text="<img src=x onerror=alert(1)>")
        expect(hostile.locator(".badge")).to_be_visible(timeout=PATIENCE_MS)
        expect(hostile.locator(".name")).to_contain_text("\\u202e&lt;.mp4")
        assert page.locator("#history .name img").count() == 0
        hostile.get_by_role("button", name="Delete").click()
        expect(page.get_by_role("button", name="Delete", exact=True)).to_be_focused()
        page.keyboard.press("Escape")
        expect(hostile.get_by_role("button", name="Delete")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        expect(hostile).to_have_count(0)
        expect(page.get_by_role("status")).to_contain_text("deleted")
    assert not any(job["name"] == HOSTILE for job in served.client.get("/jobs").json()["jobs"])


def test_an_address_that_is_none_or_private_is_said_where_it_was_given(opened: Opened) -> None:
    with opened("/", expected="the server responded with a status of 400") as page:
        field = page.get_by_label("Or paste the URL of a video")
        for given in ("", "ftp://example.com/a.mp4"):
            field.fill(given)
            page.get_by_role("button", name="Analyse").click()
            expect(page.locator("#address-error")).not_to_be_empty()
            expect(field).to_be_focused()
        field.fill("http://127.0.0.1:8080/private.mp4")
        page.get_by_role("button", name="Analyse").click()
        expect(page.locator("#address-error")).to_contain_text("only public addresses are allowed")
        expect(field).to_have_value("http://127.0.0.1:8080/private.mp4")
        field.fill("http://localhost:8080/private.mp4")
        page.get_by_role("button", name="Analyse").click()
        expect(page.get_by_role("heading", name="This video could not be analysed")).to_be_visible(timeout=PATIENCE_MS)
        page.go_back()
        expect(field).to_have_value("")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_nobody_is_shut_out(
    opened: Opened, done: dict[str, Any], broken: dict[str, Any], scheme: str, size: tuple[int, int]
) -> None:
    with opened("/", size=size, scheme=scheme) as page:
        expect(page.locator("#history li")).not_to_have_count(0)
        check_access(page)
        page.goto(done["links"]["page"])
        wait_for_film(page)
        check_access(page)
        page.goto(broken["links"]["page"])
        expect(page.get_by_role("heading", name="This video could not be analysed")).to_be_visible()
        check_access(page)


def check_access(page: Page) -> None:
    found = Axe().run(page).response
    assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_colours_that_were_chosen_stay(opened: Opened) -> None:
    with opened("/", scheme="light") as page:
        ink = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ink)
        page.get_by_role("button", name="Use dark colours").click()
        dark = page.evaluate(ink)
        assert dark != light
        page.reload()
        assert page.evaluate(ink) == dark
        page.get_by_role("button", name="Use light colours").click()
        assert page.evaluate(ink) == light


def test_the_model_is_chosen_on_the_page(served: RunningServer, opened: Opened, video: Path) -> None:
    with opened("/") as page:
        expect(page.locator("#model-about")).to_contain_text("hazardous")
        page.get_by_label("Model").select_option("second")
        page.set_input_files("#files", video)
        expect(page.locator("#about")).to_contain_text("second")
        page.go_back()
        expect(page.get_by_label("Model")).to_have_value("second")


def test_a_line_that_breaks_loses_nothing(opened: Opened, video: Path) -> None:
    with opened("/", expected="net::ERR_") as page:
        expect(page.locator("#nothing, #history li").first).to_be_attached()
        page.route("**/jobs", lambda route: route.abort())
        page.set_input_files("#files", video)
        expect(page.locator("#uploads li")).to_contain_text("The server does not answer.")
        expect(page.locator("#page-error")).to_contain_text("The server does not answer.")
        page.unroute("**/jobs")
        page.get_by_role("button", name="Try again").click()
        wait_for_film(page)


def test_a_video_that_browsers_do_not_play_is_played_as_a_copy(
    opened: Opened, served: RunningServer, tmp_path: Path
) -> None:
    file = tmp_path / "old.avi"
    draw_clip(file, "walk", seed=1, size=(96, 72), frame_rate=10, seconds=3, codec="mpeg4")
    with opened("/") as page:
        page.set_input_files("#files", file)
        expect(page.locator(".stage video")).to_be_visible(timeout=PATIENCE_MS)
        wait_for_film(page)
        assert page.evaluate("document.querySelector('video').duration") == pytest.approx(3, abs=0.2)
        page.get_by_role("slider", name="Position in the video").focus()
        page.keyboard.press("End")
        assert settled(page) == pytest.approx(3, abs=0.2)


def test_the_token_opens_the_page(opened: Opened, served: RunningServer) -> None:
    settings = served.settings.model_copy(update={"token": SecretStr(TOKEN)})
    stop = threading.Event()
    with open_listener(settings) as listener:
        app = create_app(settings, served.engine)
        thread = threading.Thread(target=serve, args=(app, listener), kwargs={"is_stopped": stop.is_set})
        thread.start()
        try:
            with opened("/", url=server_url(listener, settings), expected="status of 401") as page:
                check_access(page)
                for token in ("wrong", TOKEN):
                    page.get_by_label("Token").fill(token)
                    page.keyboard.press("Enter")
                    if token != TOKEN:
                        expect(page.get_by_role("alert")).to_have_text("The token is wrong.")
                expect(page.get_by_role("heading", name="Analyse a video")).to_be_visible()
        finally:
            stop.set()
            thread.join(20)
