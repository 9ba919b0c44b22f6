"""The HDF5 feature cache: its layout, parts, updates, inspection, verification, merging and reduction."""
