"""The HDF5 feature cache: layout, parts, updates, inspection, verification, merging and reduction."""
