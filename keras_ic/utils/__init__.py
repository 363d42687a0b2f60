"""Helpers that know nothing of layers or networks."""
