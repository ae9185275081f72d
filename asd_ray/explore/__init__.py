"""Pictures of clips and sets: spectrograms, augmented views, mean spectra, band analysis."""
