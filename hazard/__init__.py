"""Stage two: train on cached features, predict, report and monitor."""
