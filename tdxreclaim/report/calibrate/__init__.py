"""How a calibration is said."""
