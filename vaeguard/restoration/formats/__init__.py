"""Formats: scans in and out, with all that their files say beside the pixels."""
