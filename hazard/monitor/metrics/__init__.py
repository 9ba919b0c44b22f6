"""Count what a monitor does, and serve the counts to Prometheus."""
