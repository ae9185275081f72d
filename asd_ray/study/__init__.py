"""A study: the search, its trials, its tables and its report."""
