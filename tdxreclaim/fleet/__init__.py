"""Many hosts: what is said of each, and of all together.  No file is opened here."""
