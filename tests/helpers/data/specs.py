"""Feature specs for tests."""

from features.spec import FeatureSpec, Preprocessing, Sampling


def spec(**changes: object) -> FeatureSpec:
    """Return the spec of MobileNetV2 features with these fields changed."""
    fields = {
        "sampling": Sampling(),
        "preprocessing": Preprocessing(),
        "backbone": "mobilenet_v2",
        "weights": "pretrained",
        "weights_digest": "a" * 64,
        "pooling": "avg",
        "reduction": "select:512",
    }
    return FeatureSpec(**{**fields, **changes})
