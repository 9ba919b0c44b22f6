"""Analysis jobs on disk, their queue and their recovery after a restart."""
