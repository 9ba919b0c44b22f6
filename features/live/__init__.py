"""Reads many live cameras at once: frames, reconnection, and clips of the recent past."""
