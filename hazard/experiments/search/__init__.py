"""Search settings on inner folds of the training clips."""
