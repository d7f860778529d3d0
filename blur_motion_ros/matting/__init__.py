"""Soft foreground alpha."""
