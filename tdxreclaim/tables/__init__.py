"""What is known: rows, their types, look-ups by key. No logic."""
