"""SMPL-format bodies and joint tables."""
