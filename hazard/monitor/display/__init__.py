"""Show the cameras in a window on the desktop."""
