"""Heads, baselines, ensembles, calibration and open-set detection; saved, opened and exported."""
