"""Networks: what restores scans, and how it is trained."""
