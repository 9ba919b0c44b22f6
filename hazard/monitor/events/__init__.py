"""The handling of camera events: event log, state across restarts, clips and alerts."""
