"""The training loop (pure torch) and the Ray Train worker around it."""
