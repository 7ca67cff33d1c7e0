"""What of a run's metrics is shown as small curves, and how each of them looks in a healthy run."""

from collections.abc import Sequence

import attrs

from unibound.report.curves import COLORS, Curve, Line


@attrs.frozen
class Panel:
    """A small picture of one or a few metrics.

    Args:
        title: what it shows.
        metrics: names in metrics.jsonl, by the label of their curve; `*` stands for the numbers of all there are, of
            which no more are shown than there are colors.
        unit: of the vertical axis.
        healthy: what to look for, in a sentence or two.
    """

    title: str
    metrics: dict[str, str]
    unit: str
    healthy: str

    def curves(self, lines: Sequence[Line]) -> list[Curve]:
        """Those of the curves that have points."""
        found, known = {}, {name: None for line in lines for name in line}
        for label, name in self.metrics.items():
            start, star, _ = name.partition("*")
            numbers = [each.removeprefix(start) for each in known if star and each.startswith(start)]
            found |= {label.replace("*", one): start + one for one in _evenly(numbers)} if star else {label: name}
        return [curve for label, name in found.items() if (curve := Curve.of(label, lines, name)).points]


def _evenly(names: list[str]) -> list[str]:
    """As many as there are colors, from the first to the last."""
    most = len(COLORS)
    return names if len(names) <= most else [names[round(i * (len(names) - 1) / (most - 1))] for i in range(most)]


PANELS = (
    Panel(
        "Effective sample size in training",
        {"training": "ess"},
        "of K particles",
        "Between 1 and K. Healthy is well above 1; at 1 a single particle does all the work, and q is far from the "
        "posterior.",
    ),
    Panel(
        "Effective sample size on validation data",
        {"validation": "valid_ess"},
        "of K particles",
        "The same with more particles. It may fall as the model grows sharper than q; a few are too few to rely on.",
    ),
    Panel(
        "Gain of twice the particles",
        {"gap": "valid_gap"},
        "nats",
        "What the validation bound still gains when particles double. Healthy is well below a nat; more means that "
        "the NLL is overstated, and wants more particles.",
    ),
    Panel(
        "log Z",
        {"log Z": "log_z"},
        "nats",
        "Healthy is smooth, and settles. Jumps from look to look mean that the estimate is not to be relied on.",
    ),
    Panel(
        "Saturated bits of q",
        {"saturated": "saturated"},
        "share",
        "Bits that q is sure of. After an autoencoder it should be well above 0, since bits are to replace its soft "
        "codes. A q that is sure of all of them, to the end, hardly learns any more.",
    ),
    Panel(
        "What latents carry",
        {"latents": "latent_nats", "data given them": "datum_nats"},
        "nats",
        "KL(q(tau | x) || p(tau)), and -log p(x | tau); together they are minus the ELBO of validation data. "
        "Healthy is latents well above 0: at 0 p does without them.",
    ),
    Panel(
        "What each layer adds to the bound",
        {"layer *": "nats_of_layer_*"},
        "nats",
        "Of layers of latents, four where there are more, from the datum up: below 0 by what a layer carries. Healthy "
        "is every layer away from 0; one that settles there carries nothing. Only that of the top must be below 0, and "
        "all of a ladder.",
    ),
    Panel(
        "Active units",
        {"active": "active"},
        "units",
        "Units whose posterior mean varies over the data. Healthy is most of them, and lasting; units that fall idle "
        "carry nothing.",
    ),
    Panel(
        "Reconstruction by the prior",
        {"flipped": "reconstruction"},
        "per element",
        "How far one Gibbs step carries a code of the data; for bits, the share that flips. Healthy falls while the "
        "prior learns the codes, and settles above 0; near 0 its chains are stuck.",
    ),
    Panel(
        "Free energy",
        {"codes": "code_free_energy", "chains": "chain_free_energy"},
        "nats",
        "Of codes of the data and of the persistent chains. Healthy is two curves that meet; chains far below sit in "
        "modes that no datum has, chains far above have not found those of the data.",
    ),
    Panel(
        "Mixing of the chains",
        {"moved": "chain_moved", "crossed": "chain_crossed"},
        "of independent draws",
        "How far one training step moves the chains: 1 if it forgets where they were, 0 if they stay; and how far ten "
        "forget on which side of where codes and chains differ most they were. Healthy is near 1, or falls slowly as "
        "the prior sharpens; below a few hundredths, take more steps, replicas, or a lower learning rate.",
    ),
    Panel(
        "Swaps of the replicas",
        {"accepted": "swapped"},
        "share",
        "The least share of swaps accepted between two neighboring temperatures. Healthy is above a tenth; near 0 the "
        "ladder is broken there, and wants more replicas.",
    ),
    Panel(
        "Round trips of the replicas",
        {"came back": "round_trips"},
        "per hundred chains",
        "Chains that came back from the hottest temperature in one training step. Healthy is above 0; at 0 the chains "
        "that are read never hear of other modes.",
    ),
)
