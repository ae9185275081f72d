"""Networks: encoders by their timm name, heads."""
