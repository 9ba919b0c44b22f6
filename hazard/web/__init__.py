"""The web page and its API: a clip or an address → jobs → answers; what cameras saw, read from their monitors' logs."""
