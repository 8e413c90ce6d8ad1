"""Holds messages and runs turns."""
