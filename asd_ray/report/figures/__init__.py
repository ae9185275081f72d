"""Figures of the report: search (interactive), training, detection and mistakes (SVG)."""
