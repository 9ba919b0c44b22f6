"""Load a cache as `Sequences`; splits, leakage checks, official splits and corrections."""
