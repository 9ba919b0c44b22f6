"""What HTTP requests may bring in: hosts, limits, uploads and the login."""
