"""The pages of cameras in a real browser: list, filters, dialog, marking by keyboard, live updates."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.chromium import CHROMIUM, MISSING
from tests.helpers.data.monitor_folders import MonitorFolder, make_jpeg
from tests.helpers.servers.alarms import write_pictures
from tests.helpers.servers.served import run_server

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason=MISSING)
PATIENCE = 30_000.0
SHOTS = ("desktop", 1280, 900), ("phone", 390, 844)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return write_pictures(tmp_path_factory.mktemp("clip") / "c.mp4", [False] * 20 + [True] * 20).read_bytes()


@pytest.fixture
def scene(tmp_path: Path, clip: bytes) -> MonitorFolder:
    """A thousand events, the newest with their pictures and clips."""
    scene = MonitorFolder(tmp_path / "yard")
    for number in range(1000):
        is_new = number > 950
        files = {"picture": make_jpeg(number), "clip": clip} if is_new else {}
        scene.add_event(
            ago=300.0 + 600 * (999 - number), camera=["door", "gate"][number % 2],
            label=["fight", "fall"][number % 5 == 0], is_muted=number % 10 == 9, peak=0.7 + 0.0003 * number, **files,
        )  # fmt: skip
    scene.add_offline("gate")
    scene.write()
    scene.write_heartbeat(door="live", gate="offline")
    return scene


@pytest.fixture
def address(scene: MonitorFolder, tmp_path: Path) -> Iterator[str]:
    with run_server({}, tmp_path / "serve", monitors={"yard": scene.folder}) as server:
        yield server.url


@pytest.fixture
def complaints() -> list[str]:
    """The messages in the browser's console. Any message fails the test, unless the test removes it."""
    return []


@pytest.fixture
def page(chromium: Any, complaints: list[str], address: str) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900}, timezone_id="Asia/Tokyo")
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    opened.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    yield opened
    context.close()
    assert not complaints


def rows(page: Any) -> int:
    return page.locator(".events > li").count()


def test_a_thousand_events_open_in_under_a_second(page: Any, address: str) -> None:
    taken = []
    for _ in range(4):  # the first also warms the browser; others use this machine too
        page.goto("about:blank")
        began = time.monotonic()
        page.goto(address + "/cameras", wait_until="domcontentloaded")
        page.locator("a.event").first.wait_for()
        taken.append(time.monotonic() - began)
    assert rows(page) == 60
    assert "1,000 events" in page.locator("#count").inner_text()
    print("a thousand events: usable after", ", ".join(f"{seconds:.2f} s" for seconds in taken))
    assert min(taken) < 1.0


def test_cameras_and_events_are_shown_in_the_time_of_the_browser(page: Any, address: str) -> None:
    page.goto(address + "/cameras")
    states = page.locator(".camera .state").all_inner_texts()
    assert states[0].strip() == "online" and states[1].startswith("offline since")
    assert page.locator(".camera img").count() == 2
    moment = page.locator("a.event time").first
    hour = page.evaluate("t => new Date(t).getHours()", moment.get_attribute("datetime"))
    assert f"{hour:02}:" in moment.inner_text(), "Tokyo's, where this browser is"


def test_filters_leave_what_is_asked_for(page: Any, address: str) -> None:
    page.goto(address + "/cameras")
    page.locator("#camera").select_option("gate")
    page.wait_for_url("**camera=gate**")
    assert "500 events" in page.locator("#count").inner_text()
    assert set(page.locator(".event .where").all_inner_texts()) == {"gate"}
    page.locator("#label").select_option("fall")
    page.wait_for_url("**label=fall**")
    assert "100 events" in page.locator("#count").inner_text()
    page.locator("#to").fill("2001-01-01")
    page.locator(".filters button").click()
    page.get_by_text("No event matches these filters").wait_for()
    page.locator(".filters .clear").click()
    page.locator("a.event").first.wait_for()
    assert rows(page) == 60
    page.locator("#more").click()
    page.locator(".events > li:nth-child(120)").wait_for()
    assert page.locator("#count").is_visible()


def test_events_are_marked_by_keyboard_one_after_the_other(
    page: Any, address: str, scene: MonitorFolder, tmp_path: Path
) -> None:
    page.goto(address + "/cameras")
    page.locator("#mark-all").click()
    page.locator("dialog video").wait_for()
    began = time.monotonic()
    for number in range(20):
        page.locator("#place", has_text=f"{number + 1} of").wait_for()
        page.keyboard.press("n" if number % 4 == 3 else "y")
    page.locator("#place", has_text="21 of").wait_for()
    print(f"20 events marked in {time.monotonic() - began:.1f} s")
    page.keyboard.press("ArrowLeft")
    page.locator("dialog .verdict [data-word=wrong][aria-pressed=true]").wait_for()
    page.keyboard.press("u")
    page.locator("dialog .verdict .quiet[disabled]").wait_for()
    assert page.locator("#said").inner_text().endswith("mark removed.")
    page.keyboard.press("Escape")
    page.locator("#count", has_text="981 not yet marked").wait_for()
    assert page.url.endswith("/cameras")
    assert page.evaluate("document.activeElement.className") == "event", "where one was"
    assert page.locator(".events .badge.good").count() == 15 and page.locator(".events .badge.bad").count() == 4
    page.goto(address + "/cameras?mark=none")
    page.locator("#count", has_text="981 events").wait_for()
    got = page.request.get(address + "/api/corrections.csv").text().splitlines()
    assert len(got) == 1 + 19


def test_arrows_reach_events_that_are_not_loaded_yet(page: Any, address: str) -> None:
    page.goto(address + "/cameras")
    page.locator("a.event").nth(59).click()
    page.locator("#place", has_text="60 of 60+").wait_for()
    page.keyboard.press("ArrowRight")
    page.locator("#place", has_text="61 of 120+").wait_for()
    assert "was removed" in page.locator("dialog .callout").inner_text(), "the clip of an old event"
    page.go_back()
    page.locator("dialog").wait_for(state="hidden")
    assert page.url.endswith("/cameras")


def test_clips_play_and_may_be_sought(page: Any, address: str) -> None:
    page.goto(address + "/cameras")
    page.locator("a.event").first.click()
    video = page.locator("dialog video")
    video.wait_for()
    video.evaluate("v => v.readyState >= 3 || new Promise(done => { v.oncanplay = () => done() })")
    assert video.evaluate("v => v.duration") == pytest.approx(4.0, abs=0.3)
    at = video.evaluate(
        "v => new Promise(done => { v.pause(); v.onseeked = () => done(v.currentTime); v.currentTime = 3 })"
    )
    assert at == pytest.approx(3.0, abs=0.2)


def test_what_happens_appears_by_itself(page: Any, address: str, scene: MonitorFolder, clip: bytes) -> None:
    page.goto(address + "/cameras")
    page.locator("a.event").nth(2).focus()
    page.evaluate("window.stays = document.querySelector('.events > li:nth-child(3)')")
    scene.add_event(ago=1, lasts=None, camera="gate", label="blaze", picture=make_jpeg(3))
    scene.write()
    page.locator(".events > li:first-child", has_text="blaze").wait_for()
    assert page.locator("#news").inner_text() == "New event: blaze at gate"
    assert page.locator(".events > li:first-child .badge").inner_text() == "ongoing"
    assert page.evaluate("document.activeElement === window.stays.querySelector('a')"), "focus stays where it was"
    assert "1,001 events" in page.locator("#count").inner_text()
    page.locator("a.event").first.click()
    page.locator("dialog .callout.odd").wait_for()
    scene.add_event(ago=1, lasts=3, camera="gate", label="blaze", clip=clip)
    scene.write()
    page.locator("dialog video").wait_for()
    page.keyboard.press("Escape")
    page.locator(".events > li:first-child .badge").wait_for(state="detached")
    scene.write_heartbeat(is_over=True, door="live", gate="offline")
    page.locator(".camera .state", has_text="monitor not running").first.wait_for()


def test_a_server_that_is_gone_is_told(page: Any, complaints: list[str], scene: MonitorFolder, tmp_path: Path) -> None:
    with run_server({}, tmp_path / "second", monitors={"yard": scene.folder}) as server:
        page.goto(server.url + "/cameras")
    page.locator("#lost").wait_for()
    assert rows(page) == 60
    page.goto("about:blank")
    assert all("net::ERR_" in one for one in complaints), complaints
    complaints.clear()


def test_a_server_that_hangs_is_told(page: Any, address: str) -> None:
    page.clock.install()
    page.goto(address + "/cameras")
    page.route("**/cameras?*part=1*", lambda route: None)  # which never answers
    with page.expect_request("**/cameras?*part=1*"):
        page.clock.run_for(3_500)
    assert page.locator("#lost").is_hidden()
    page.clock.run_for(11_000)
    page.locator("#lost").wait_for()
    page.unroute_all()
    page.clock.run_for(3_500)
    page.locator("#lost").wait_for(state="hidden")


def test_numbers_are_drawn_and_told(page: Any, address: str) -> None:
    page.goto(address + "/cameras/statistics")
    page.wait_for_url("**zone=Asia*")
    assert page.locator(".tiles dd").first.inner_text() == "1,000"
    assert page.locator("figure svg rect").count() >= 24 + 7
    page.locator("figure:has(#by-hour) summary").click()
    counts = page.locator("figure:has(#by-hour) tbody td").all_inner_texts()
    assert len(counts) == 24 and sum(map(int, counts)) == 1000
    assert page.locator(".ranks").first.locator("tbody tr").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("device", "width", "height"), SHOTS)
def test_no_serious_fault_of_accessibility(
    chromium: Any, address: str, scene: MonitorFolder, device: str, width: int, height: int, scheme: Any
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    for path in ("/cameras", "/cameras?camera=nobody", "/cameras/statistics", "event", "dialog"):
        page.goto(address + (path if path.startswith("/") else "/cameras"))
        if path == "event":
            page.goto(address + page.locator("a.event").first.get_attribute("href"))
        if path == "dialog":
            page.locator("a.event").first.click()
            page.locator("dialog video").wait_for()
            page.keyboard.press("y")
            page.locator("#place", has_text="2 of").wait_for()
            page.keyboard.press("ArrowLeft")
            page.locator("dialog [aria-pressed=true]").wait_for()
        found = axe.Axe().run(page).response["violations"]
        serious = [
            (one["id"], one["nodes"][0]["html"][:120]) for one in found if one["impact"] in ("serious", "critical")
        ]
        assert not serious, path
        wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
        assert not wide, f"{path} is wider than a {device}"
    context.close()
