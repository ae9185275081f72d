"""Synthetic machines: physical models of machines and faults, and recordings of them."""
