"""The commands `extract-features` and `python -m features`."""
