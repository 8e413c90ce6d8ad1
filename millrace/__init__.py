"""The command line, and the embedded system that `millrace up` runs."""
