"""Log events, keep the state across restarts, and send each alert once."""
