"""KVM's counters in debugfs: what a VM has mapped, read without holding it."""
