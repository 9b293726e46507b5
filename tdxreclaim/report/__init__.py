"""How it is said: one pure renderer a format."""
