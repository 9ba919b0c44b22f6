"""Prepare a data set: near-duplicates, groups, splits and a manifest to edit."""
