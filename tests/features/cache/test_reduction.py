import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from features.cache.reduction import BLOCK_ROWS, FITTERS, Reduction, fit, parse_reduction
from features.errors import ArtifactError, SettingsError

RNG = np.random.default_rng(0)
TRACKS = [RNG.normal(size=(12, 20)).astype(np.float16) for _ in range(9)]


def loud_tracks() -> list[NDArray[np.float16]]:
    """Return tracks of slightly correlated channels of increasing variance, with means other than zero."""
    rng = np.random.default_rng(1)
    mix = rng.normal(size=(20, 20)) * 0.3 + np.eye(20)
    return [(rng.normal(size=(12, 20)) @ mix * np.linspace(0.1, 4, 20) + 2).astype(np.float16) for _ in range(9)]


@pytest.mark.parametrize("kind", FITTERS)
def test_fit_apply_and_arrays(kind: str) -> None:
    reduction = fit(f"{kind}:6", TRACKS, width=20)
    assert reduction is not None
    assert reduction.width == 6
    result = reduction.apply(TRACKS[0])
    assert result.shape == (12, 6)
    assert result.dtype == np.float16
    again = Reduction.from_arrays(reduction.kind, reduction.to_arrays())
    assert again.digest == reduction.digest
    assert (again.apply(TRACKS[0]) == result).all()


def test_none_is_no_reduction() -> None:
    assert fit("none", TRACKS, width=20) is None


def test_select_keeps_the_channels_that_move_most_as_they_are() -> None:
    still = [np.ones((12, 20), np.float16) for _ in range(3)]
    for track in still:
        track[::2, [3, 11]] = 5
    reduction = fit("select:2", still, width=20)
    assert reduction is not None
    assert reduction.channels is not None
    assert reduction.channels.tolist() == [3, 11]
    assert (reduction.apply(still[0]) == still[0][:, [3, 11]]).all()


@pytest.mark.parametrize("kind", ["pca", "pca-scaled", "pca-whitened"])
def test_pca_agrees_with_scikit_learn(kind: str) -> None:
    tracks = loud_tracks()
    rows = np.concatenate(tracks).astype(np.float64)
    scale = [StandardScaler()] if kind == "pca-scaled" else []
    expected = make_pipeline(*scale, PCA(5, svd_solver="full", whiten=kind == "pca-whitened")).fit(rows)
    bessel = (len(rows) - 1) / len(rows)  # scikit-learn's variances divide by one row less
    reduction = fit(f"{kind}:5", tracks, width=20)
    assert reduction is not None
    assert reduction.explained_variance == pytest.approx(expected[-1].explained_variance_ * bessel, rel=1e-4)
    theirs = expected.transform(rows) / (np.sqrt(bessel) if kind == "pca-whitened" else 1)
    ours = reduction.apply(rows.astype(np.float16)).astype(np.float64)
    sign = np.sign((theirs * ours).sum(axis=0))
    assert ours * sign == pytest.approx(theirs, rel=2e-3, abs=2e-3 * np.abs(theirs).max())


def test_scaling_lets_quiet_channels_count_and_whitening_spreads_components_alike() -> None:
    tracks = loud_tracks()
    rows = np.concatenate(tracks)
    plain, scaled, whitened = (fit(f"{kind}:5", tracks, width=20) for kind in ("pca", "pca-scaled", "pca-whitened"))
    assert plain is not None and scaled is not None and whitened is not None
    assert plain.components is not None and scaled.components is not None
    deviation = rows.astype(np.float64).std(axis=0)
    assert np.abs(plain.components[0]).argmax() == deviation.argmax()
    assert np.linalg.norm(scaled.components * deviation, axis=1) == pytest.approx(np.ones(5), rel=1e-4)
    assert whitened.apply(rows).astype(np.float64).std(axis=0) == pytest.approx(np.ones(5), rel=1e-3)


@pytest.mark.parametrize("kind", ["pca-scaled", "pca-whitened"])
def test_what_never_moved_in_training_does_not_blow_up_later(kind: str) -> None:
    tracks = [track.copy() for track in TRACKS]
    for track in tracks:
        track[:, 4] = 0.25
        track[:, 9] = track[:, 8]  # the last component has no variance
    later = np.full((1, 20), 6, np.float16)
    reduction = fit(f"{kind}:20", tracks, width=20)
    assert reduction is not None
    assert np.abs(reduction.apply(later).astype(np.float64)).max() < 2e4
    still = fit(f"{kind}:3", [np.ones((12, 20), np.float16)], width=20)
    assert still is not None
    assert np.isfinite(still.apply(later)).all()


def test_one_pass_over_tracks_of_any_length_gives_what_all_rows_at_once_give() -> None:
    tracks = [
        RNG.normal(size=(length, 20)).astype(np.float16) for length in (0, 1, BLOCK_ROWS - 1, 3, 2 * BLOCK_ROWS, 7)
    ]
    once = (track for track in tracks)
    streamed, whole = fit("pca:4", once, width=20), fit("pca:4", [np.concatenate(tracks)], width=20)
    assert streamed is not None and whole is not None
    for name, array in streamed.to_arrays().items():
        assert array == pytest.approx(whole.to_arrays()[name], abs=1e-5), name


@pytest.mark.parametrize("text", ["selct:5", "select", "select:0", "select:21", "pca:x", "none:3", ""])
def test_wrong_reduction_is_one_clear_line(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_reduction(text, width=20)


def test_pca_of_too_few_rows_says_so() -> None:
    with pytest.raises(SettingsError, match="needs more than 15 frames"):
        fit("pca:15", TRACKS[:1], width=20)


def test_foreign_arrays_are_refused() -> None:
    for arrays in ({}, {"weights": np.zeros(3)}, {"mean": np.zeros(3, np.float32)}):
        with pytest.raises(ArtifactError):
            Reduction.from_arrays("pca:2", arrays)
