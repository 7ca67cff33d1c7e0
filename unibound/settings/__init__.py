"""The settings of a run: records, and the layers they are read from."""
