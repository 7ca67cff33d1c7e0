"""The front door of Python: `fit` and `load`, and the trained model that they return."""

from unibound.front.fit import fit, load
from unibound.front.trained import Trained

__all__ = ["Trained", "fit", "load"]
