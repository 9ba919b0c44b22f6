"""Atomic files, text, progress bars, command lines, settings, the worker pool, file identity and the user cache."""
