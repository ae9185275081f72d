"""One anomaly score in each module, registered under the module's name. A new module here is a new score."""
