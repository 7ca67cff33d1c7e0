"""Data sets by name: each file here is one or two, and is found by its entry point."""
