"""Atomic files, text, progress bars, command lines, the worker pool, file identity and the user cache."""
