"""How the catalogue of findings is said."""
