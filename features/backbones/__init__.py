"""Frozen networks by name, each with its preprocessing and its weights."""
