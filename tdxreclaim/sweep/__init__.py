"""Many what-ifs at once: a plan, its trials, and what they come to."""
