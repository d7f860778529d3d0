"""Intrinsics, distortion, crops, and the exposure interval of an image."""
