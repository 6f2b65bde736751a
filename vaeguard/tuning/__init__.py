"""Tuning: a search for better settings that uses normal images only."""
