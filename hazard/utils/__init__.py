"""Text for people, structured logs, bind addresses, safe file names and prefetching."""
