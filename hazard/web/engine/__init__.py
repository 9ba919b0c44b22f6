"""Worker processes that analyse videos, and the threads that feed them."""
