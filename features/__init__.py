"""Stage one: videos to cached feature tracks."""
