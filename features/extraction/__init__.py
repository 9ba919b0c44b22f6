"""Feature extraction: the jobs of the workers, the local and the Ray engine, and the command that fills a cache."""
