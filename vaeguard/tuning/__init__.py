"""Tuning: a search for better settings that looks at normal images alone."""
