"""Stage two: feature tracks to decisions."""
