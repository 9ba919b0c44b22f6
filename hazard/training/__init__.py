"""Fit one model: the loop, losses, augmentation and checkpoints."""
