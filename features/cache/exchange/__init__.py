"""Import features from array files into a cache, and export a cache to array files or Parquet."""
