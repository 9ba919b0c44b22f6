"""Predict videos with a model: predictions, thresholds, zero shot, review and the whole run."""
