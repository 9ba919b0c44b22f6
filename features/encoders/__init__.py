"""Turn frames into features on a device, with PyTorch or OpenVINO."""
