"""Stage one: videos to cached feature tracks."""

__version__ = "0.1.0"
