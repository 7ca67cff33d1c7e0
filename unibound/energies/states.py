"""States that can be listed, and what they weigh."""

import math
from collections.abc import Callable

import attrs
from torch import Tensor


@attrs.frozen(eq=False)
class Enumeration:
    """States whose weights sum to a partition function: Z = sum over states of exp(log_f(state)).

    A state is a row of digits, each below `base`.

    Args:
        num_digits: digits of a state.
        log_f: maps states [N, num_digits], float, to log-weights [N] in nats.
        draw: maps states to tau [N, *Z], drawn given the state; None where it is not known how.
        base: values of a digit.
    """

    num_digits: int
    log_f: Callable[[Tensor], Tensor]
    draw: Callable[[Tensor], Tensor] | None = None
    base: int = 2

    @property
    def num_bits(self) -> int:
        """Bits that it takes to number the states."""
        return math.ceil(self.num_digits * math.log2(self.base))
