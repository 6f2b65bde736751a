"""Models: the mathematics of the VAE and of its score, in torch; no files."""
