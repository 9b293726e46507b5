"""How long it takes to empty a host, as text and as JSON."""
