"""Models: each builds the networks of q and p."""

from typing import TYPE_CHECKING

from unibound_plugins import lazily

if TYPE_CHECKING:
    from unibound_plugins.models.decoder import Decoder as Decoder
    from unibound_plugins.models.denoising import Denoising as Denoising
    from unibound_plugins.models.dequantized import Dequantized as Dequantized
    from unibound_plugins.models.diffusion import Diffusion as Diffusion
    from unibound_plugins.models.draw import DRAW as DRAW
    from unibound_plugins.models.flow import Flow as Flow
    from unibound_plugins.models.identity import Identity as Identity
    from unibound_plugins.models.ladder import Ladder as Ladder
    from unibound_plugins.models.mlp import MLP as MLP
    from unibound_plugins.models.resnet import ResNet as ResNet
    from unibound_plugins.models.sbn import SBN as SBN
    from unibound_plugins.models.vdm import VDM as VDM
    from unibound_plugins.models.vrnn import VRNN as VRNN
else:
    __getattr__, __dir__ = lazily(__name__, __file__)
