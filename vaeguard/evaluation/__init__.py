"""Evaluation: score, watch and evaluate images with a detector; plain results, no pictures."""
