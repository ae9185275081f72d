"""ASD methods: what one training step is, and how a clip is embedded. One file each, and one line in the registry."""
