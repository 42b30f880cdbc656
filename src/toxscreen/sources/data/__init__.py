"""Formats of training data, one member per file."""
