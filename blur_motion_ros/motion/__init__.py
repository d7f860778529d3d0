"""Rotations and polynomials of pose over time."""
