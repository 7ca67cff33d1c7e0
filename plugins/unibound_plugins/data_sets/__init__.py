"""Data sets by name."""

from typing import TYPE_CHECKING

from unibound_plugins import lazily

if TYPE_CHECKING:
    from unibound_plugins.data_sets.alignment import Alignment as Alignment
    from unibound_plugins.data_sets.binarized_mnist import BinarizedMnist as BinarizedMnist
    from unibound_plugins.data_sets.cifar10 import Cifar10 as Cifar10
    from unibound_plugins.data_sets.digits import Digits as Digits
    from unibound_plugins.data_sets.matlab import Caltech101Silhouettes as Caltech101Silhouettes
    from unibound_plugins.data_sets.matlab import Omniglot as Omniglot
    from unibound_plugins.data_sets.mnist import FashionMnist as FashionMnist
    from unibound_plugins.data_sets.mnist import Mnist as Mnist
else:
    __getattr__, __dir__ = lazily(__name__, __file__)
