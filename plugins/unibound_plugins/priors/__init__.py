"""Priors: each a distribution over latents, normalized or known by its energy."""

from typing import TYPE_CHECKING

from unibound_plugins import lazily

if TYPE_CHECKING:
    from unibound_plugins.priors.bernoulli import Bernoulli as Bernoulli
    from unibound_plugins.priors.convolved import Convolved as Convolved
    from unibound_plugins.priors.dbm import DBM as DBM
    from unibound_plugins.priors.flow import Flow as Flow
    from unibound_plugins.priors.gaussian import Gaussian as Gaussian
    from unibound_plugins.priors.made import MADE as MADE
    from unibound_plugins.priors.nade import NADE as NADE
    from unibound_plugins.priors.rbm import RBM as RBM
else:
    __getattr__, __dir__ = lazily(__name__, __file__)
