"""Watch live cameras: detection, events, metrics and the desktop window."""
