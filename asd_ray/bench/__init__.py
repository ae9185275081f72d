"""Benchmarks: asd_ray beside what a user would run instead, measured in one run. ``README.md`` has the numbers."""
