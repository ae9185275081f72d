"""sia_moco, arXiv 2509.15570: momentum contrast on augmented Log-Mel views, then a classifier."""
