"""Mocap readers, synthesis, datasets."""
