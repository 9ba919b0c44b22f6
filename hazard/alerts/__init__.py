"""Alerts, their channels, the outbox and delivery."""
