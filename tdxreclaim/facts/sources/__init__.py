"""The doors: this host, a captured tree, an archive."""
