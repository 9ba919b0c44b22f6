from features.spec import FeatureSpec, Preprocessing, Sampling
from tests.helpers.data.specs import spec


def test_each_setting_changes_the_fingerprint() -> None:
    changed = [
        spec(sampling=Sampling(frames=16)),
        spec(sampling=Sampling(kind="rate", frames=None, fps=6)),
        spec(preprocessing=Preprocessing(fit="squash")),
        spec(weights_digest="b" * 64),
        spec(pooling="max"),
        spec(precision="bf16"),
        spec(reduction="pca:512"),
        spec(reduction_digest="c" * 64),
    ]
    assert len({s.fingerprint for s in [spec(), *changed]}) == len(changed) + 1


def test_fingerprint_survives_json() -> None:
    assert FeatureSpec.model_validate_json(spec().model_dump_json()).fingerprint == spec().fingerprint


def test_differences_name_the_fields() -> None:
    assert spec().differences(spec()) == []
    lines = spec().differences(spec(sampling=Sampling(frames=16), pooling="max"))
    assert lines == ["sampling.frames: 12, not 16", "pooling: avg, not max"]


def test_reduction_not_fitted_yet_agrees_with_a_fitted_one() -> None:
    assert spec(reduction_digest="c" * 64).differences(spec()) == []
    assert spec(reduction_digest="c" * 64).differences(spec(reduction_digest="d" * 64))
