"""The mosaic of all cameras, drawn without a display, and the effect of keys and clicks."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hazard.monitor.display.mosaic import Canvas, arrange_grid, arrange_tiles, compose, make_overlay
from hazard.monitor.display.tile import SignalLoss, Tile
from hazard.monitor.display.window import DisplayState, handle_click, handle_key
from hazard.types import Event
from tests.helpers.tile_images import GREEN, NOW, RED, SIZE, is_orange, middle


def jpeg_of(color: tuple[int, int, int], size: tuple[int, int] = (640, 360)) -> bytes:
    image = np.full((size[1], size[0], 3), color[::-1], np.uint8)
    return cv2.imencode(".jpg", image)[1].tobytes()


def calm_tile(number: int = 0, **changes: object) -> Tile:
    """Return the tile of a camera without an event."""
    values = {"jpeg": jpeg_of(GREEN), "captured_at": NOW, "label": "calm", "probability": 0.1, "threshold": 0.6}
    values |= {"probability_label": "fight", "curve": ((0.0, 60.0, 0.1),), "end_seconds": 60.0}
    return Tile(f"camera-{number}", **values | changes)  # type: ignore[arg-type]


def event_tile(**changes: object) -> Tile:
    events = (Event("fight", 50, 60, 0.9, 0.8),)
    since = NOW - timedelta(seconds=10)
    return calm_tile(label="fight", probability=0.9, event_since=since, events=events, **changes)


def draw(tiles: Sequence[Tile], number: int, **options: int) -> np.ndarray:
    """Return the pixels of one tile in the mosaic."""
    left, top, width, height = arrange_tiles(tiles, SIZE, options.get("enlarged"))[number]
    return compose(tiles, SIZE, **options)[top : top + height, left : left + width]


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
    tiles = [calm_tile(i, jpeg=jpeg_of(color)) for i, color in enumerate([GREEN, RED, RED, GREEN])]
    for number, color in enumerate([GREEN, RED, RED, GREEN]):
        assert middle(draw(tiles, number)) == pytest.approx(color, abs=6)


def test_an_event_has_a_banner_and_a_frame() -> None:
    tiles = [calm_tile(0), event_tile()]
    calm, alarming = draw(tiles, 0), draw(tiles, 1)
    assert is_orange(alarming[:, :2]) and is_orange(alarming[3:6, 3:200])
    assert not is_orange(calm[:, :2]) and not is_orange(calm[3:6, 3:200])


def test_a_camera_that_is_lost_is_dark_and_says_so() -> None:
    lost = replace(event_tile(), signal_loss=SignalLoss("offline", NOW, NOW - timedelta(minutes=5), "silent for 20 s"))
    dark, waiting = draw([lost], 0), draw([Tile("door")], 0)
    assert middle(dark).max() < 70
    assert not is_orange(dark[:, :2])
    for image in (dark, waiting):
        centre = image[300:420, 400:880]
        assert centre.max() > 150, "text is drawn"
    assert make_overlay(lost).label == "offline"
    assert (make_overlay(lost).probability, make_overlay(lost).timeline) == (None, None)


@pytest.mark.parametrize("jpeg", [b"", b"no jpeg", jpeg_of(GREEN)[:200]])
def test_without_a_picture_there_is_a_tile_all_the_same(jpeg: bytes) -> None:
    assert draw([calm_tile(jpeg=jpeg)], 0).max() > 150


def test_a_large_camera_has_the_others_below_it() -> None:
    tiles = [calm_tile(i) for i in range(5)]
    boxes = arrange_tiles(tiles, SIZE, 3)
    assert boxes[3].height > 500
    assert all(boxes[i].top >= boxes[3].top + boxes[3].height for i in (0, 1, 2, 4))
    many = [*(calm_tile(i) for i in range(40)), event_tile()]
    assert 40 in arrange_tiles(many, SIZE, 0), "an event is seen even where not all find room"
    assert 39 not in arrange_tiles(many, SIZE, 0)


def test_only_what_changed_is_drawn_again() -> None:
    canvas, tiles = Canvas(), [calm_tile(0), calm_tile(1)]
    assert canvas.draw_tiles(tiles, SIZE)
    assert not canvas.draw_tiles(list(tiles), SIZE)
    marked = canvas.boxes[0]
    canvas.image[marked.top, marked.left] = (1, 2, 3)
    assert canvas.draw_tiles([tiles[0], calm_tile(1, jpeg=jpeg_of(RED))], SIZE)
    assert canvas.image[marked.top, marked.left].tolist() == [1, 2, 3]
    assert canvas.draw_tiles(tiles, SIZE, 1)
    assert canvas.find_tile(640, 300) == 1


def test_names_stay_where_tiles_are_small() -> None:
    assert make_overlay(event_tile(), "1 · ", is_brief=True).label == "1 · camera-0"
    assert make_overlay(event_tile(), "1 · ").note.startswith("1 · camera-0 · since ")
    assert "no alerts now" in make_overlay(calm_tile(has_alerts=False)).note


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
