"""Holds the sockets: authenticates, appends what clients say, fans out what the log says."""
