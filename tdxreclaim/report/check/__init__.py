"""How a verdict is said."""
