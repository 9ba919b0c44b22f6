"""A cache loaded as `Sequences`; splits, leakage checks, official splits and corrections."""
