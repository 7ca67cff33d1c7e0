"""Likelihoods: each reads the outputs of a network as a distribution."""

from typing import TYPE_CHECKING

from unibound_plugins import lazily

if TYPE_CHECKING:
    from unibound_plugins.likelihoods.bernoulli import Bernoulli as Bernoulli
    from unibound_plugins.likelihoods.categorical import Categorical as Categorical
    from unibound_plugins.likelihoods.gaussian import Gaussian as Gaussian
    from unibound_plugins.likelihoods.laplace import Laplace as Laplace
    from unibound_plugins.likelihoods.levels import DiscretizedLogistic as DiscretizedLogistic
    from unibound_plugins.likelihoods.levels import LogisticMixture as LogisticMixture
    from unibound_plugins.likelihoods.logistic import Logistic as Logistic
    from unibound_plugins.likelihoods.spins import Spins as Spins
    from unibound_plugins.likelihoods.student_t import StudentT as StudentT
else:
    __getattr__, __dir__ = lazily(__name__, __file__)
