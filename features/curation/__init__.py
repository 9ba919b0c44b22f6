"""Prepare a data set: near-duplicate frames, groups, splits, warnings, and a manifest to edit."""
