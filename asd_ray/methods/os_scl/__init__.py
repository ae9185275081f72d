"""os_scl, arXiv 2509.13853: one-stage supervised contrastive learning."""
