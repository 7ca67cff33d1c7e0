"""Partition estimators: each finds what normalizes an energy."""

from typing import TYPE_CHECKING

from unibound_plugins import lazily

if TYPE_CHECKING:
    from unibound_plugins.partition.ais import AIS as AIS
    from unibound_plugins.partition.bdmc import BDMC as BDMC
    from unibound_plugins.partition.exact import Exact as Exact
    from unibound_plugins.partition.raise_ import Raise as Raise
else:
    __getattr__, __dir__ = lazily(__name__, __file__)
