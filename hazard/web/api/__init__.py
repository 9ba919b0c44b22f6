"""The JSON API of analysis jobs."""
