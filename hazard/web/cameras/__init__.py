"""The cameras of monitors on the page: event logs read, searched and marked."""
