"""The DCASE challenge's own formats: submissions, and the official evaluators' metrics."""
