"""Public data sets: registry, download, unpacking, ground truth."""
