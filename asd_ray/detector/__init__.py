"""A trained detector on disk: save, load, score, decide."""
