"""A ticket: which findings its lines are, when, and what they mean."""
