"""How many hosts are said: a module a format."""
