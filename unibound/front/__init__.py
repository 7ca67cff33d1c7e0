"""The front door of Python: `fit` and `load`, the trained model that they return, and `certify` for others' weights."""

from unibound.front.certify import certify
from unibound.front.fit import fit, load
from unibound.front.trained import Trained

__all__ = ["Trained", "certify", "fit", "load"]
