"""Settings: frozen specs whose defaults are the only defaults, and what checks them; no torch."""
