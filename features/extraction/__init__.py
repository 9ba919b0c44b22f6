"""The batch job that fills a cache: jobs, local and Ray engines."""
