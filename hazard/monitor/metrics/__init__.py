"""The counters of a monitor, and their export to Prometheus."""
