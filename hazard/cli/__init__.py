"""The commands `train-temporal`, `hazard-infer` and `hazard`."""
