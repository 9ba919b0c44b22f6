"""The rules of timing, health and credentials without clocks or processes, and the frame ring."""

import numpy as np
import pytest

from features.errors import SettingsError
from features.live.frame_ring import FrameRing, RingSlot, ring_bytes
from features.live.health import CameraHealth, backoff_seconds, update_health
from features.live.pacing import CatchUp, is_picked
from features.live.source import Camera, mask_credentials, source_kind
from features.spec import Preprocessing, Sampling
from features.video.preprocess import crop_to_zone, preprocess_frame
from features.video.sampling import select_rows


@pytest.mark.parametrize("fps", [0.5, 2.4, 5, 25, 60])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_frames_picked_live_are_those_picked_of_a_file(fps: float, seed: int) -> None:
    times = np.cumsum(np.random.default_rng(seed).choice([0.02, 0.04, 0.1, 0.9], 200)) - 0.02
    times -= times[0]
    ends = np.append(times[1:], times[-1] + 0.04)
    live = [i for i, (start, end) in enumerate(zip(times, ends, strict=True)) if is_picked(start, end, fps)]
    whole = np.floor(ends[-1] * fps) / fps  # end of the last full step of the rate
    filed = select_rows(times, 0.0, whole, Sampling(kind="rate", frames=None, fps=fps)).ravel().tolist()
    assert live[: len(filed)] == filed and len(live) - len(filed) <= 1  # live also covers the rest of the last frame


def told(events: str, *, silence: float = 20.0) -> list[tuple[float, str]]:
    """Return the status changes that `EVENT@SECOND …` causes, with their times."""
    health, news = CameraHealth(0.0), []
    for text in events.split():
        event, _, at = text.partition("@")
        health, said = update_health(health, event, float(at), silence_seconds=silence)  # type: ignore[arg-type]
        news += [(float(at), kind) for kind in said]
    return news


@pytest.mark.parametrize(
    ("events", "news"),
    [
        ("frame@1 tick@20 frame@21 tick@40", []),
        ("frame@1 tick@21 tick@21.1 tick@22 tick@99", [(21.1, "offline")]),
        ("tick@19 tick@20.5 closed@21 closed@30 tick@99", [(20.5, "offline")]),
        ("frame@1 closed@30 frame@31 frame@32", [(30, "offline"), (31, "back")]),
        ("frame@1 tick@30 frame@31 closed@32 tick@33 frame@34", [(30, "offline"), (31, "back")]),
        ("frame@1 tick@30 frame@31 tick@52 frame@53", [(30, "offline"), (31, "back"), (52, "offline"), (53, "back")]),
        ("frame@1 ended@2 tick@99 closed@100", [(2, "ended")]),
    ],
)
def test_offline_is_told_once_and_back_is_told_once(events: str, news: list[tuple[float, str]]) -> None:
    assert told(events) == news


def test_waits_grow_up_to_a_bound_and_are_drawn_over_all_of_their_length() -> None:
    assert [backoff_seconds(attempt, lambda: 1.0) for attempt in (1, 2, 3, 4, 5, 6, 7, 10**6)] == [
        1,
        2,
        4,
        8,
        16,
        30,
        30,
        30,
    ]
    assert backoff_seconds(5, lambda: 0.25) == 4 and backoff_seconds(5, lambda: 0.0) == 0


def test_only_a_steady_connection_makes_waits_short_again() -> None:
    health = CameraHealth(0.0)
    for second in range(5):  # each connection gives a single frame
        health, _ = update_health(health, "frame", float(second))
        health, _ = update_health(health, "closed", second + 0.5)
    assert health.failed_attempts == 5
    for second in (10.0, 15.0, 21.0):
        health, _ = update_health(health, "frame", second)
    assert health.failed_attempts == 0


def skipped(packets: list[tuple[float, float, bool]]) -> list[bool]:
    catch_up = CatchUp()
    return [catch_up.should_skip(seconds, now, is_keyframe=is_key) for seconds, now, is_key in packets]


def test_who_falls_behind_goes_on_from_a_keyframe_that_is_in_time() -> None:
    prompt = [(i * 0.04, 100 + i * 0.04, i % 25 == 0) for i in range(100)]
    assert not any(skipped(prompt))
    held_up = [(second, now + 5 if second < 3 else now + 0.1, is_key) for second, now, is_key in prompt[1:]]
    was = skipped([prompt[0], *held_up])
    assert was[1:75] == [True] * 74 and was[75:] == [False] * 25


def test_a_clock_that_runs_slow_or_is_set_back_makes_no_stream_late() -> None:
    slow = [(i * (1 - 5e-4), float(i), i % 10 == 0) for i in range(20_000)]  # 10 s slow in 20,000 s
    assert not any(skipped(slow))
    set_back = [
        *((i * 1.0, float(i), True) for i in range(100)),
        *((i * 1.0 - 60, float(i), True) for i in range(100, 200)),
    ]
    assert not any(skipped(set_back))
    a_little = [
        *((i * 0.1, i * 0.1, True) for i in range(100)),
        *((i * 0.1, i * 0.1 + 3, True) for i in range(100, 400)),
    ]
    assert not skipped(a_little)[-1]  # permanently later: accepted after ten seconds


@pytest.mark.parametrize("rate", [0.99, 0.9, 0.4])
def test_a_clock_that_is_wrong_is_learned(rate: float) -> None:
    was = skipped([(i * 0.1 * rate, i * 0.1, True) for i in range(36_000)])  # an hour
    assert not any(was[18_000:]) and sum(was) <= 3 * 102  # ten seconds for each correction


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:pa@ss/word@10.0.0.5/live", "rtsp://***@10.0.0.5/live"),
        ("cannot open 'RTSP://a:b@h:554/x', giving up", "cannot open 'RTSP://***@h:554/x', giving up"),
        ("http://h/v?user=admin&password=x&ch=1", "http://h/v?user=***&password=***&ch=1"),
        ("http://h/v?access_token=x", "http://h/v?access_token=***"),
        ("rtsp://10.0.0.5/live", "rtsp://10.0.0.5/live"),
    ],
)
def test_credentials_are_hidden(text: str, shown: str) -> None:
    assert mask_credentials(text) == shown
    assert "pa@ss" not in repr(Camera("a", text))


def test_kinds_of_sources() -> None:
    kinds = {"rtsps://h/x": "rtsp", "http://h/x.m3u8": "http", "0": "device", "a/0.mp4": "file", "C:x.mp4": "file"}
    assert {source: source_kind(source) for source in kinds} == kinds
    with pytest.raises(SettingsError, match=r"concat://\*\*\*@h: expected rtsp, .* got the scheme 'concat'"):
        source_kind("concat://u:p@h")


def test_a_zone_shows_all_of_itself_and_nothing_else() -> None:
    image = np.full((100, 200, 3), 10, np.uint8)
    image[20:60, 50:150] = 250
    corners = ((0.25, 0.2), (0.75, 0.2), (0.75, 0.6), (0.25, 0.6))
    squashed = crop_to_zone(image, corners, Preprocessing(size=32, fit="squash"))
    assert squashed.shape == (40, 100, 3) and (squashed == 250).all()
    cropped = preprocess_frame(
        crop_to_zone(image, corners, Preprocessing(size=56, resize=64)), Preprocessing(size=56, resize=64)
    )
    white = (cropped > 245).all(axis=2)
    assert white[20:36, 2:-2].all() and abs(int(white.sum()) - 56 * 22) < 200  # all 100 x 40, undistorted
    triangle = crop_to_zone(image, ((0.25, 0.2), (0.75, 0.2), (0.25, 0.6)), Preprocessing(size=32, fit="squash"))
    assert (triangle[2, 2] == 250).all() and (triangle[-2, -2] == (124, 116, 104)).all()


# The ring.


def a_ring(kept: int = 3) -> FrameRing:
    return FrameRing(bytearray(ring_bytes(4, kept, with_jpeg=True)), size=4, capacity=kept, with_jpeg=True)


def a_slot(number: int) -> RingSlot:
    return RingSlot(
        1, number / 10, 1e9 + number, 5.0 + number, np.full((4, 4, 3), number, np.uint8), bytes([number] * number)
    )


def test_a_ring_gives_what_was_put_and_counts_what_was_overwritten() -> None:
    ring = a_ring()
    assert ring.take() == ([], 0)
    for number in range(3):
        ring.put(a_slot(number))
    slots, dropped = ring.take()
    assert dropped == 0 and [slot.seconds for slot in slots] == [0.0, 0.1, 0.2]
    assert slots[2].jpeg == b"\2\2" and (slots[2].pixels == 2).all() and slots[2].wall == 1e9 + 2
    for number in range(3, 20):
        ring.put(a_slot(number))
    slots, dropped = ring.take()
    assert dropped == 14 and [slot.seconds for slot in slots] == [1.7, 1.8, 1.9]
    assert (slots[0].pixels == 17).all() and ring.take() == ([], 0)


def test_a_frame_that_was_half_written_when_its_process_was_killed_is_never_given() -> None:
    ring = a_ring()
    ring.put(a_slot(1))
    ring._slots[0]["after"] = -1
    assert ring.take() == ([], 1)
