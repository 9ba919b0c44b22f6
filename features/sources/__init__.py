"""Find clips: folders, manifests, split lists and URLs become a list of `Clip`."""
