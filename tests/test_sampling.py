import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.sampling import instants, select, window_starts
from features.spec import Sampling


def test_even_takes_the_middle_of_equal_segments() -> None:
    assert instants(0, 12, Sampling(frames=4)).tolist() == [1.5, 4.5, 7.5, 10.5]


def test_rate_takes_one_instant_a_step_and_at_least_one() -> None:
    assert instants(0, 2, Sampling(kind="rate", frames=None, fps=2)) == pytest.approx([0.25, 0.75, 1.25, 1.75])
    assert len(instants(0, 0.1, Sampling(kind="rate", frames=None, fps=2))) == 1


def test_the_frame_on_screen_is_taken() -> None:
    times = np.array([0.0, 1.0, 1.1, 5.0])
    assert select(times, 6.0, Sampling(frames=3)).tolist() == [1, 2, 3]


@given(
    gaps=st.lists(st.floats(0.001, 2), min_size=1, max_size=200),
    frames=st.integers(1, 40),
)
def test_indices_ascend_lie_within_and_are_at_most_as_many_as_asked_for(gaps: list[float], frames: int) -> None:
    times = np.cumsum(gaps) - gaps[0]
    chosen = select(times, times[-1] + 0.04, Sampling(frames=frames))
    assert 1 <= len(chosen) <= min(frames, len(times))
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < len(times)


def windows(frames: int, window: float, stride: float) -> Sampling:
    return Sampling(kind="windows", frames=frames, window_seconds=window, stride_seconds=stride)


def test_windows_cover_the_video_to_its_end() -> None:
    assert window_starts(0, 10, windows(4, 4, 2)).tolist() == [0, 2, 4, 6]
    assert window_starts(0, 9, windows(4, 4, 2)).tolist() == [0, 2, 4, 5]
    assert window_starts(0, 3, windows(4, 4, 2)).tolist() == [0]


def test_an_instant_that_windows_share_is_read_once() -> None:
    assert instants(0, 4, windows(4, 2, 1)).tolist() == pytest.approx([0.25 + 0.5 * i for i in range(8)])
    assert instants(0, 1, windows(2, 2, 1)).tolist() == pytest.approx([0.25, 0.75])
