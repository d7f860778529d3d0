"""Metrics, blur rate, baselines, reports."""
