"""Imports features from array files into a cache, and exports a cache to array files or Parquet."""
