"""Estimators: each turns the two joints and a batch into a gradient."""

from typing import TYPE_CHECKING

from unibound_plugins import lazily

if TYPE_CHECKING:
    from unibound_plugins.estimators.autoencoder import Autoencoder as Autoencoder
    from unibound_plugins.estimators.cd import CD as CD
    from unibound_plugins.estimators.contrastive_rws import ContrastiveRWS as ContrastiveRWS
    from unibound_plugins.estimators.dae import DAE as DAE
    from unibound_plugins.estimators.fivo import FIVO as FIVO
    from unibound_plugins.estimators.greedy import Greedy as Greedy
    from unibound_plugins.estimators.iwae import IWAE as IWAE
    from unibound_plugins.estimators.nvil import NVIL as NVIL
    from unibound_plugins.estimators.renyi import Renyi as Renyi
    from unibound_plugins.estimators.rws import RWS as RWS
    from unibound_plugins.estimators.sgvb import SGVB as SGVB
    from unibound_plugins.estimators.vimco import VIMCO as VIMCO
    from unibound_plugins.estimators.wake_sleep import WakeSleep as WakeSleep
else:
    __getattr__, __dir__ = lazily(__name__, __file__)
