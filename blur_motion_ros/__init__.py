"""Measure human motion from motion blur. Importing this package loads nothing else."""

__version__ = "0.1.0"
