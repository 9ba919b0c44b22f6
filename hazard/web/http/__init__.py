"""The checks of HTTP requests: host, origin and token, limits, uploads and sign-in."""
