"""Save and load a trained detector, score recordings, and decide which are anomalous."""
