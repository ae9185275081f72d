"""asd_ray: Ray-distributed hyperparameter studies for anomalous sound detection."""

__version__ = "0.1.0"
