"""What follows: tables and the decision, pure functions of the facts."""
