"""The DCASE 2020 baseline: an autoencoder of stacked Log-Mel frames."""
