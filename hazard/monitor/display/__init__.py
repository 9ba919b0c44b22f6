"""The desktop window that shows the cameras."""
