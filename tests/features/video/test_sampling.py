import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.spec import Sampling
from features.video.sampling import sample_instants, select_rows, window_starts


def test_even_takes_the_middle_of_equal_segments() -> None:
    assert sample_instants(0, 12, Sampling(frames=4)).tolist() == [1.5, 4.5, 7.5, 10.5]


def test_rate_takes_one_instant_a_step_and_at_least_one() -> None:
    assert sample_instants(0, 2, Sampling(kind="rate", frames=None, fps=2)) == pytest.approx([0.25, 0.75, 1.25, 1.75])
    assert len(sample_instants(0, 0.1, Sampling(kind="rate", frames=None, fps=2))) == 1


def test_the_frame_on_screen_is_taken() -> None:
    times = np.array([0.0, 1.0, 1.1, 5.0])
    assert select_rows(times, 0.0, 6.0, Sampling(frames=3))[:, 0].tolist() == [1, 2, 3]


@given(
    gaps=st.lists(st.floats(0.001, 2), min_size=1, max_size=200),
    frames=st.integers(1, 40),
)
def test_indices_ascend_lie_within_and_are_at_most_as_many_as_asked_for(gaps: list[float], frames: int) -> None:
    times = np.cumsum(gaps) - gaps[0]
    chosen = select_rows(times, 0.0, times[-1] + 0.04, Sampling(frames=frames))[:, 0]
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
    assert sample_instants(0, 4, windows(4, 2, 1)).tolist() == pytest.approx([0.25 + 0.5 * i for i in range(8)])
    assert sample_instants(0, 1, windows(2, 2, 1)).tolist() == pytest.approx([0.25, 0.75])


TIMES = np.arange(50) / 25  # two seconds
KINDS = {
    "even": Sampling(frames=5),
    "every": Sampling(kind="every", frames=None, every=7),
    "rate": Sampling(kind="rate", frames=None, fps=3),
    "all": Sampling(kind="all", frames=None),
    "windows": windows(4, 1, 0.5),
    "snippets": Sampling(kind="snippets", frames=8, fps=10, stride_seconds=0.4),
}


def test_every_takes_the_middle_of_so_many_and_all_takes_all() -> None:
    assert select_rows(TIMES, 0, 2, KINDS["every"])[:, 0].tolist() == [3, 10, 17, 24, 31, 38, 45]
    assert select_rows(TIMES, 0, 2, KINDS["all"])[:, 0].tolist() == list(range(50))
    assert select_rows(TIMES[:2], 0, 0.08, KINDS["every"])[:, 0].tolist() == [1]


def test_snippets_begin_a_stride_apart_and_the_last_one_ends_with_the_clip() -> None:
    rows = select_rows(TIMES, 0, 2, KINDS["snippets"])
    assert rows.shape == (4, 8)
    assert TIMES[rows[:, 0]] == pytest.approx([0.04, 0.44, 0.84, 1.24])
    assert TIMES[rows[-1]].max() < 2
    short = select_rows(TIMES[:5], 0, 0.2, KINDS["snippets"])
    assert short.tolist() == [[1, 3, 4, 4, 4, 4, 4, 4]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_a_part_is_sampled_from_its_own_frames(kind: str, seed: int | None) -> None:
    rows = select_rows(TIMES, 0.5, 1.5, KINDS[kind], seed=seed)
    assert rows.ndim == 2
    assert 0.5 - 0.04 <= TIMES[rows].min() <= TIMES[rows].max() < 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_jitter_is_seeded_and_moves_instants(kind: str) -> None:
    first, again, other = (select_rows(TIMES, 0, 2, KINDS[kind], seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert kind == "all" or not np.array_equal(first, other)
