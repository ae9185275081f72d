"""The methods, a folder each with an index of its equations; their interface, what they share, and their workers."""
