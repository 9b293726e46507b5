"""Forms in which a CPU is written down: /proc/cpuinfo, lscpu, CPUID dumps."""
