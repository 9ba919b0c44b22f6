"""Metrics on arrays, bootstrap intervals, operating points and plots."""
