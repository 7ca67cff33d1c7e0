"""Runs: one folder each, from the settings to the trained and evaluated model."""
