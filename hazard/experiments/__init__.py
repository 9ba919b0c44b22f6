"""One training run: folds, metrics with intervals, leaderboard and trackers."""
