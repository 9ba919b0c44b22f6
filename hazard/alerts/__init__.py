"""Alerts: their settings and channels, the outbox on disk, and delivery."""
