"""Transitions: each moves the states of an energy."""

from typing import TYPE_CHECKING

from unibound_plugins import lazily

if TYPE_CHECKING:
    from unibound_plugins.transitions.gibbs_with_gradients import GibbsWithGradients as GibbsWithGradients
    from unibound_plugins.transitions.hmc import HMC as HMC
    from unibound_plugins.transitions.langevin import Langevin as Langevin
    from unibound_plugins.transitions.mala import MALA as MALA
    from unibound_plugins.transitions.own import Own as Own
else:
    __getattr__, __dir__ = lazily(__name__, __file__)
