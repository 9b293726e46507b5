"""Kernels that need not run: what a module, an image, a configuration or a package tells."""
