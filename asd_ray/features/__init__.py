"""Log-Mel features: the transform, the pipeline that builds a store, and the store itself."""
