"""A watched shutdown, as text and as JSON."""
