"""What is so: reads a host, live, captured or faked, and never judges."""
