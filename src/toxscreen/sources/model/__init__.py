"""Kinds of model, one member per file."""
