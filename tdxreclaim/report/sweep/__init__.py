"""How a sweep is said: a module a format, and one for the rows of all."""
