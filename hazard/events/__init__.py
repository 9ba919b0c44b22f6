"""Turn probabilities into labels and events; compare events with the ground truth."""
