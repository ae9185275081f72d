"""The benchmarks behind the README's numbers: ours beside what a user would run instead, in one run."""
