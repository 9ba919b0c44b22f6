"""Download the videos of URLs in sandboxed processes."""
