"""Synthetic blurred sequences: a dressed body driven by motion capture, rendered in linear light over a plate."""
