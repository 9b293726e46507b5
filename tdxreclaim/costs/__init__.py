"""How long: calibrations, the scene that is asked about, and its estimate."""
