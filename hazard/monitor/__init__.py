"""The live monitor: detection, events, alerts, metrics and the desktop window."""
