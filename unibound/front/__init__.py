"""The front door of Python: `fit` and `load`, the trained model that they return, and `certify` for others' weights."""
