"""How a simulation is said."""
