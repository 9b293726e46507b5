"""Kernel logs: lines, stamps, stacks, boots."""
