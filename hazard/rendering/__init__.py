"""Draw predictions into videos; playback, MP4 files and highlights."""
