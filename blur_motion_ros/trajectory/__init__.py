"""Sampling, covariance and prediction of fitted motion."""
