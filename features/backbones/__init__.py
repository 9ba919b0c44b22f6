"""Frozen networks by name, each with its preprocessing and weights."""
