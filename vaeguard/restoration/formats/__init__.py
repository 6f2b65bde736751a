"""File formats of scans: read and write pages without losing metadata."""
