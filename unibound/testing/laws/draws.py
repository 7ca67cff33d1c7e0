"""Whether draws are those of the distribution that scores them, where there are too many values to count."""

from collections.abc import Callable

import torch
from torch import Tensor

from unibound.testing.verdict import FALSE_ALARM, demand, in_words

NUM_DRAWS = 4000
STEP = 0.1
"""Of the parameters as a whole, or less: nats by which log-probabilities may change, so that no few draws decide."""


def follow_log_prob(
    log_prob: Callable[[Tensor], Tensor], parameters: Tensor, what: str, directions: Tensor | None = None
) -> str:
    """Demand that draws weigh one on average under any parameters, and that two of them have nothing in common.

        E[q(tau; t + s) / q(tau; t)] = 1   for tau ~ q(.; t), every step s, and for no other tau

    of which the part odd in s is nearly the score, and the even part what it lacks for a wrong spread.

    Args:
        log_prob: log-probabilities [N, B] of draws tau [N, B, *Z], N of them for each of B data, of parameters.
        parameters: t, at which they were drawn [P].
        what: they are, in words.
        directions: of steps [D, P], of any length, and not chosen by these draws; three at random if left out.
    """
    if directions is None:
        directions = torch.randn(3, len(parameters), dtype=parameters.dtype)
    off, log_q = {"mean": 0.0, "spread": 0.0, "pairs": 0.0}, log_prob(parameters)
    for direction in torch.nn.functional.normalize(directions):
        change = (log_prob(parameters + STEP * direction) - log_q).std(0).max().item()
        step = STEP * min(1.0, STEP / change) if change > 0 else STEP
        up, down = ((log_prob(parameters + sign * step * direction) - log_q).expm1() for sign in (1, -1))  # [N, B]
        odd, even = up - down, up + down
        for name, values in {"mean": odd, "spread": even, "pairs": odd[0::2] * odd[1::2]}.items():
            errors = values.std(0) / len(values) ** 0.5
            far = values.mean(0).abs() / errors.clamp_min(torch.finfo(values.dtype).tiny)
            off[name] = max(off[name], far.max().item())
    numbers = f"of {len(log_q)} draws, {what}, in standard errors: {in_words(off)}"
    wrong = max(off["mean"], off["spread"])
    demand(wrong <= FALSE_ALARM, f"it draws from another distribution than log_prob's; {numbers}")
    demand(off["pairs"] <= FALSE_ALARM, f"draws of one datum depend on each other; {numbers}")
    return numbers
