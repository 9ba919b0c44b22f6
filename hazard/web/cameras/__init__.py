"""The cameras of monitors: their event logs read, searched and marked by users."""
