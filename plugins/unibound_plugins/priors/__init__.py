"""Priors: each a distribution over latents, normalized or known by its energy."""

from typing import TYPE_CHECKING

from unibound_plugins import lazily

if TYPE_CHECKING:
    from unibound_plugins.priors.bernoulli import Bernoulli as Bernoulli
    from unibound_plugins.priors.convolved import Convolved as Convolved
    from unibound_plugins.priors.dbm import DBM as DBM
    from unibound_plugins.priors.deep_energy import DeepEnergy as DeepEnergy
    from unibound_plugins.priors.flow import Flow as Flow
    from unibound_plugins.priors.gaussian import Gaussian as Gaussian
    from unibound_plugins.priors.gaussian_rbm import GaussianRBM as GaussianRBM
    from unibound_plugins.priors.logistic_mixture import LogisticMixture as LogisticMixture
    from unibound_plugins.priors.made import MADE as MADE
    from unibound_plugins.priors.nade import NADE as NADE
    from unibound_plugins.priors.potts_rbm import PottsRBM as PottsRBM
    from unibound_plugins.priors.rbm import RBM as RBM
    from unibound_plugins.priors.spin_rbm import SpinRBM as SpinRBM
else:
    __getattr__, __dir__ = lazily(__name__, __file__)
