"""The heartbeat of a monitor, and the deletion of old snapshots and clips."""
