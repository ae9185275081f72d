"""Where recordings come from: layouts, downloads, synthetic machines, checks."""
