"""The Ray that a study runs on: local or a cluster's, submitted jobs, and watching its nodes."""
