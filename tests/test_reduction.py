import numpy as np
import pytest

from features.errors import ArtefactRefused, SettingsError
from features.reduction import FITS, Reduction, fit, parse

RNG = np.random.default_rng(0)
TRACKS = [RNG.normal(size=(12, 20)).astype(np.float16) for _ in range(9)]


@pytest.mark.parametrize("kind", FITS)
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


def test_pca_agrees_with_scikit_learn() -> None:
    from sklearn.decomposition import PCA

    rows = np.concatenate(TRACKS).astype(np.float64)
    expected = PCA(5, svd_solver="full").fit(rows)
    reduction = fit("pca:5", TRACKS, width=20)
    assert reduction is not None
    assert reduction.components is not None
    assert reduction.explained_variance == pytest.approx(
        expected.explained_variance_ * (len(rows) - 1) / len(rows), rel=1e-4
    )
    assert np.abs((reduction.components * expected.components_).sum(axis=1)) == pytest.approx(np.ones(5), abs=1e-4)


@pytest.mark.parametrize("text", ["selct:5", "select", "select:0", "select:21", "pca:x", "none:3", ""])
def test_wrong_reduction_is_one_clear_line(text: str) -> None:
    with pytest.raises(SettingsError):
        parse(text, width=20)


def test_pca_of_too_few_rows_says_so() -> None:
    with pytest.raises(SettingsError, match="needs more than 15 frames"):
        fit("pca:15", TRACKS[:1], width=20)


def test_foreign_arrays_are_refused() -> None:
    for arrays in ({}, {"weights": np.zeros(3)}, {"mean": np.zeros(3, np.float32)}):
        with pytest.raises(ArtefactRefused):
            Reduction.from_arrays("pca:2", arrays)
