"""What numba does in silence: a machine compiles the loops when it first needs them, and keeps them."""

import logging

from numba.core import event

COMPILING = "compiling loops for this processor, which is done once and takes up to a minute"


class _Announced(event.Listener):
    """Says that something is compiled, once in a process; what is read from a cache is not compiled."""

    said = False

    def on_start(self, event: event.Event) -> None:
        if not self.said:
            self.said = True
            logging.getLogger("unibound").info(COMPILING)

    def on_end(self, event: event.Event) -> None:
        pass


def announce() -> None:
    """From here on, say so when numba begins to compile."""
    event.register("numba:compile", _Announced())
