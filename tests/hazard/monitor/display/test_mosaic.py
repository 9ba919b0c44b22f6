"""All cameras in one picture, without a display; what keys and clicks change in it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hazard.monitor.display.mosaic import Canvas, arrange_grid, arrange_tiles, compose, make_overlay
from hazard.monitor.display.tile import SignalLoss, Tile
from hazard.monitor.display.window import DisplayState, handle_click, handle_key
from hazard.types import Event

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SIZE = (1280, 720)
GREEN, RED = (30, 160, 60), (190, 40, 40)


def jpeg_of(colour: tuple[int, int, int], size: tuple[int, int] = (640, 360)) -> bytes:
    image = np.full((size[1], size[0], 3), colour[::-1], np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def sight(number: int = 0, **more: object) -> Tile:
    """A camera on which nothing happens."""
    facts = {"jpeg": jpeg_of(GREEN), "at": NOW, "label": "calm", "probability": 0.1, "of": "fight", "threshold": 0.6}
    return Tile(f"camera-{number}", **facts | {"curve": ((0.0, 60.0, 0.1),), "seconds": 60.0} | more)  # type: ignore[arg-type]


def in_event(**more: object) -> Tile:
    events = (Event("fight", 50, 60, 0.9, 0.8),)
    return sight(label="fight", probability=0.9, since=NOW - timedelta(seconds=10), events=events, **more)


def tile(sights: Sequence[Tile], number: int, **more: int) -> np.ndarray:
    left, top, width, height = arrange_tiles(sights, SIZE, more.get("enlarged"))[number]
    return compose(sights, SIZE, **more)[top : top + height, left : left + width]


def middle(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return image[height // 2 - 5 : height // 2 + 5, width // 4 : width // 4 + 10].mean(axis=(0, 1))


def is_orange(pixels: np.ndarray) -> bool:
    red, _, blue = pixels.reshape(-1, 3).astype(int).mean(axis=0)
    return bool(red - blue > 100)


@given(
    count=st.integers(1, 50),
    width=st.integers(320, 1920),
    height=st.integers(180, 1200),
    enlarged=st.none() | st.integers(0, 49),
)
@settings(max_examples=60, deadline=None)
def test_tiles_lie_in_the_picture_and_beside_each_other(
    count: int, width: int, height: int, enlarged: int | None
) -> None:
    number = None if enlarged is None else enlarged % count
    boxes = arrange_tiles([Tile(str(i)) for i in range(count)], (width, height), number)
    covered = np.zeros((height, width), int)
    for left, top, w, h in boxes.values():
        assert w >= 1 and h >= 1
        assert left >= 0 and top >= 0 and left + w <= width and top + h <= height
        covered[top : top + h, left : left + w] += 1
    assert covered.max() == 1
    assert number in boxes if number is not None else len(boxes) == count


def test_a_grid_has_the_shape_of_the_pictures() -> None:
    assert [(box.width, box.height) for box in arrange_grid(1, SIZE, 16 / 9)] == [SIZE]
    four = arrange_grid(4, SIZE, 4 / 3)
    assert all(box.width / box.height == pytest.approx(4 / 3, rel=0.02) for box in four)
    assert len({box.left for box in four}) == len({box.top for box in four}) == 2


def test_each_camera_is_where_it_belongs() -> None:
    sights = [sight(i, jpeg=jpeg_of(colour)) for i, colour in enumerate([GREEN, RED, RED, GREEN])]
    for number, colour in enumerate([GREEN, RED, RED, GREEN]):
        assert middle(tile(sights, number)) == pytest.approx(colour, abs=6)


def test_an_event_has_a_banner_and_a_frame() -> None:
    sights = [sight(0), in_event()]
    calm, alarming = tile(sights, 0), tile(sights, 1)
    assert is_orange(alarming[:, :2]) and is_orange(alarming[3:6, 3:200])
    assert not is_orange(calm[:, :2]) and not is_orange(calm[3:6, 3:200])


def test_a_camera_that_is_lost_is_dark_and_says_so() -> None:
    lost = replace(in_event(), signal_loss=SignalLoss("offline", NOW, NOW - timedelta(minutes=5), "silent for 20 s"))
    dark, never = tile([lost], 0), tile([Tile("door")], 0)
    assert middle(dark).max() < 70
    assert not is_orange(dark[:, :2])
    for image in (dark, never):
        centre = image[300:420, 400:880]
        assert centre.max() > 150, "words"
    assert make_overlay(lost).label == "offline"
    assert (make_overlay(lost).probability, make_overlay(lost).timeline) == (None, None)


@pytest.mark.parametrize("jpeg", [b"", b"no jpeg", jpeg_of(GREEN)[:200]])
def test_without_a_picture_there_is_a_tile_all_the_same(jpeg: bytes) -> None:
    assert tile([sight(jpeg=jpeg)], 0).max() > 150


def test_a_large_camera_has_the_others_below_it() -> None:
    sights = [sight(i) for i in range(5)]
    boxes = arrange_tiles(sights, SIZE, 3)
    assert boxes[3].height > 500
    assert all(boxes[i].top >= boxes[3].top + boxes[3].height for i in (0, 1, 2, 4))
    many = [*(sight(i) for i in range(40)), in_event()]
    assert 40 in arrange_tiles(many, SIZE, 0), "an event is seen even where not all find room"
    assert 39 not in arrange_tiles(many, SIZE, 0)


def test_only_what_changed_is_drawn_again() -> None:
    canvas, sights = Canvas(), [sight(0), sight(1)]
    assert canvas.draw_tiles(sights, SIZE)
    assert not canvas.draw_tiles(list(sights), SIZE)
    marked = canvas.boxes[0]
    canvas.image[marked.top, marked.left] = (1, 2, 3)
    assert canvas.draw_tiles([sights[0], sight(1, jpeg=jpeg_of(RED))], SIZE)
    assert canvas.image[marked.top, marked.left].tolist() == [1, 2, 3]
    assert canvas.draw_tiles(sights, SIZE, 1)
    assert canvas.find_tile(640, 300) == 1


def test_names_stay_where_tiles_are_small() -> None:
    assert make_overlay(in_event(), "1 · ", is_brief=True).label == "1 · camera-0"
    assert make_overlay(in_event(), "1 · ").note.startswith("1 · camera-0 · since ")
    assert "no alerts now" in make_overlay(sight(has_alerts=False)).note


def test_keys_and_clicks() -> None:
    large = handle_key(DisplayState(), ord("2"), 3)
    assert large == DisplayState(1)
    assert handle_key(large, ord("2"), 3) == handle_key(large, 27, 3) == handle_click(large, 1, 3) == DisplayState()
    assert handle_key(large, ord("3"), 3) == handle_click(large, 2, 3) == DisplayState(2)
    assert (
        handle_key(DisplayState(), ord("4"), 3)
        == handle_key(DisplayState(), ord("1"), 1)
        == handle_click(DisplayState(), None, 3)
        == DisplayState()
    )
    assert all(handle_key(DisplayState(), key, 3).is_closed for key in (27, ord("q")))
    assert handle_key(large, ord("q"), 3).is_closed
