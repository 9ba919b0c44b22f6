"""Windows of long videos: each gives what extracting that part would give, and no frame is encoded twice."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.backbones.weights import weights_digest
from features.config import RunSettings
from features.encoders.torch_encoder import build_encoder
from features.extraction.jobs import DecodeJob
from features.extraction.local_engine import encode_batches, extract_clips
from features.spec import FeatureSpec, Preprocessing, Sampling
from features.types import Clip, ExtractedClip, make_window_clip, split_window_tracks
from features.utils.worker_pool import run_tasks
from features.video.decoder import read_frames
from features.video.windows import Windowing, choose_window_and_stride, make_window_sampler, window_spans
from hazard.events.decision import window_cores
from tests.helpers.data.videos import overwrite, read_number, write_numbered

SPEC = FeatureSpec(
    sampling=Sampling(frames=4),
    preprocessing=Preprocessing(size=64),
    backbone="mobilenet_v2",
    weights="random",
    weights_digest=weights_digest("mobilenet_v2", None),
    pooling="avg",
)
WINDOWS = Windowing(window_seconds=2.0, stride_seconds=1.0, whole_seconds=2.5)
SETTINGS = RunSettings(device="cpu", runtime="torch", workers=1)
SAMPLINGS = (
    Sampling(frames=4),
    Sampling(kind="rate", frames=None, fps=3.0),
    Sampling(kind="every", frames=None, every=5),
    Sampling(kind="snippets", frames=3, fps=5.0, stride_seconds=0.5),
)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of 7.3 seconds at ten frames per second."""
    path = tmp_path_factory.mktemp("windows") / "long.mp4"
    write_numbered(path, count=73, rate=10)
    return path


def extracted(clips: list[Clip], spec: FeatureSpec = SPEC, windows: Windowing | None = None) -> Iterator[ExtractedClip]:
    for outcome in extract_clips(clips, spec, None, SETTINGS, windows=windows):
        assert isinstance(outcome, ExtractedClip), outcome
        yield outcome


def test_windows_are_what_extracting_each_part_gives(video: Path) -> None:
    clip = Clip("long.mp4", video, label="fight")
    (found,) = extracted([clip], windows=WINDOWS)
    assert found.windows
    assert found.windows.spans.tolist() == [[0, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7], [5.3, 7.3]]
    parts = [make_window_clip(clip, (start, end)) for start, end in found.windows.spans.tolist()]
    assert parts[-1].path == "long.mp4#t=5.3,7.3"
    alone = {outcome.clip.path: outcome.tracks[0] for outcome in extracted(parts)}
    for track in split_window_tracks(found.windows):
        assert (track.features == alone[track.clip.path].features).all()
        assert track.times == pytest.approx(alone[track.clip.path].times, abs=1e-6)
        assert (track.clip.label, track.clip.group) == ("", "long.mp4")
    shared = len(set(found.windows.times.tolist()))
    assert len(found.windows.features) == shared == 14 + 4  # two a second, and those of the last window


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=lambda sampling: sampling.kind)
def test_every_sampling_is_cut_alike(video: Path, sampling: Sampling) -> None:
    def numbers(windows: Windowing, span: tuple[float, float]) -> dict[object, list[list[int]]]:
        batch = read_frames(video, make_window_sampler(sampling, windows), lambda image: image, span=span)
        shown = np.array([read_number(image) for image in batch.data])
        return {name: shown[rows].tolist() for name, rows in batch.rows.items()}

    whole = numbers(WINDOWS, (0.0, float("inf")))
    assert len(whole) == 7
    for span, rows in whole.items():
        assert isinstance(span, tuple)
        assert numbers(Windowing(2.0, 1.0, 100.0), span) == {"none": rows}


def test_a_clip_no_longer_than_usual_is_one(video: Path) -> None:
    clip = Clip("long.mp4", video)
    (whole,) = extracted([clip], windows=replace(WINDOWS, whole_seconds=7.5))
    (plain,) = extracted([clip])
    assert whole.windows is None
    assert (whole.tracks[0].features == plain.tracks[0].features).all()


def test_the_whole_may_come_beside_its_windows(video: Path) -> None:
    (both,) = extracted([Clip("long.mp4", video)], windows=replace(WINDOWS, with_whole=True))
    (plain,) = extracted([Clip("long.mp4", video)])
    assert both.windows
    assert (both.tracks[0].features == plain.tracks[0].features).all()
    assert len(list(both.all_tracks())) == 8


def test_a_part_of_a_video_is_cut_within_itself(video: Path) -> None:
    part = Clip("long.mp4#t=2,6", video, start_seconds=2.0, end_seconds=6.0)
    (found,) = extracted([part], windows=WINDOWS)
    assert found.windows
    assert found.windows.spans.tolist() == [[2, 4], [3, 5], [4, 6]]
    assert [track.clip.path for track in split_window_tracks(found.windows)] == [
        "long.mp4#t=2,4",
        "long.mp4#t=3,5",
        "long.mp4#t=4,6",
    ]
    assert found.windows.duration == pytest.approx(4)
    assert 0 <= found.windows.times.min() < found.windows.times.max() < 4


def test_decoding_here_and_encoding_there_gives_the_same(video: Path) -> None:
    (here,) = extracted([Clip("long.mp4", video)], windows=WINDOWS)
    tasks = run_tasks(DecodeJob(SPEC, windows=WINDOWS), [Clip("long.mp4", video)], workers=1, deadline_seconds=60)
    (there,) = encode_batches([result for _, result in tasks], [build_encoder(SPEC, None)])  # type: ignore[misc]
    assert isinstance(there, ExtractedClip)
    assert here.windows
    assert there.windows
    assert (there.windows.features == here.windows.features).all()
    assert [rows.tolist() for rows in there.windows.rows] == [rows.tolist() for rows in here.windows.rows]


def test_nothing_is_said_of_windows_that_could_not_be_decoded(tmp_path: Path) -> None:
    path = tmp_path / "damaged.mp4"
    write_numbered(path, count=300, rate=10, options={"g": "10"})
    overwrite(path, 0.4, 0.6)
    (found,) = extracted([Clip("damaged.mp4", path)], windows=WINDOWS)
    assert found.windows
    assert found.windows.status == "partial"
    starts = found.windows.spans[:, 0]
    assert {0.0, 28.0} < set(starts.tolist())
    assert np.diff(starts).max() > 2, "the windows in the damage are left out"
    cores = window_cores(found.windows.spans, found.windows.duration)
    assert (cores[1:, 0] >= cores[:-1, 1] - 1e-9).all()
    assert cores[1:, 0].max() - cores[:-1, 1].min() > 0
    assert (np.diff(cores, axis=1) <= 2 + 1e-9).all(), "no window speaks for what nobody saw"


@given(seconds=st.floats(0.05, 5000), window=st.floats(0.05, 60), share=st.floats(0.05, 1), whole=st.floats(0.05, 100))
def test_windows_cover_all_of_a_video_and_no_more(seconds: float, window: float, share: float, whole: float) -> None:
    windows = Windowing(window, window * share, whole)
    if windows.splits_into_windows(seconds) and seconds / windows.stride_seconds < 2000:
        spans = window_spans(0.0, seconds, windows)
        assert spans[0, 0] == 0
        assert spans[-1, 1] == pytest.approx(seconds, abs=1e-3)
        assert (spans[1:, 0] <= spans[:-1, 1] + 2e-3).all()
        cores = window_cores(spans, seconds)
        assert cores[0, 0] == 0
        assert cores[-1, 1] == pytest.approx(seconds, abs=2e-3)
        assert cores[1:, 0] == pytest.approx(cores[:-1, 1], abs=2e-3)


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=lambda sampling: sampling.kind)
@pytest.mark.parametrize("seconds", [0.7, 2.0, 2.53, 4.1, 10.0])
def test_usual_windows_share_their_frames(sampling: Sampling, seconds: float) -> None:
    window, stride = choose_window_and_stride(sampling, seconds)
    assert window == pytest.approx(seconds, rel=0.25)
    assert stride == pytest.approx(window / 2, rel=0.25)
    times = np.arange(0, 40, 0.04)
    rows = make_window_sampler(sampling, Windowing(window, stride, window))(times, 0.0, 40.0)
    grid = len(np.unique(np.concatenate([each.ravel() for each in list(rows.values())[:-1]])))
    if sampling.kind in ("even", "rate"):
        rate = len(next(iter(rows.values()))) / window  # frames a second of one window alone
        assert grid <= 1.05 * rate * 40
