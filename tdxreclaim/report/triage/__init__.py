"""How a triage is said."""
