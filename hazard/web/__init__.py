"""The web page and its API: videos become jobs and jobs become answers; camera events are read from monitors' logs."""
