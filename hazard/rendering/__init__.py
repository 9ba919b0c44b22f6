"""Annotated videos and highlights: predictions drawn into videos, playback, MP4 files."""
