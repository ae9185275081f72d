"""Parts that several methods share: networks, heads, losses, mixup, buffers, saved encoders."""
