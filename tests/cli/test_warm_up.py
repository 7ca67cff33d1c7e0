"""A divergence that is weighed more from stage to stage: it trains otherwise, and what is reported stays the ELBO."""

import json
from pathlib import Path
from typing import Any

import pytest
from running import Cli, Words, refused

STAGES = """
[model]
name = "ladder"
sizes = [3, 2]
hidden = [8, 4]

[prior]
name = "gaussian"

[estimator]
name = "sgvb"

[[stage]]
estimator = { name = "sgvb", kl_weight = 0.1, free_bits = 0.2 }

[[stage]]
estimator = { name = "sgvb", kl_weight = 0.5 }

[[stage]]
"""
WITHOUT = ("estimator", "prior", "model", "partition")


@pytest.fixture(name="run")
def _run(cli: Cli, tiny: Words) -> Any:
    Path("warm.toml").write_text(STAGES)

    def run(folder: str, *words: object) -> list[dict[str, Any]]:
        given = [*tiny(folder, without=WITHOUT, config="warm.toml", validate_every=1)]
        at = given.index("--epochs")
        del given[at : at + 2]
        steps = [word for stage in (1, 2, 3) for word in (f"--stage.{stage}.epochs", 2)]
        found = cli(*given, *steps, *words)
        assert found.code == 0, found.err
        return [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]

    return run


def plain() -> list[object]:
    """What takes the warm-up out of all stages."""
    return [
        *("--stage.1.estimator.kl-weight", 1, "--stage.1.estimator.free-bits", 0),
        *("--stage.2.estimator.kl-weight", 1),
    ]


def test_a_warm_up_in_stages_runs_to_its_end(run: Any) -> None:
    lines = run("warm")
    assert [line["done"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert {"nats_of_layer_1", "nats_of_layer_2"} <= lines[-1].keys()
    result = json.loads(Path("warm/evaluation.json").read_text())
    assert result["nll"] > 0


def test_what_a_stage_reports_is_the_elbo_whatever_it_climbs(run: Any) -> None:
    """Of weights that stand still; a bound of what is climbed would be nats higher."""
    still = [word for stage in (1, 2, 3) for word in (f"--stage.{stage}.optimizer.learning-rate", 1e-12)]
    eased, whole = run("eased", *still), run("whole", *still, *plain())
    for one, other in zip(eased, whole, strict=True):
        assert one["bound"] == pytest.approx(other["bound"], abs=1e-4)
        assert one["valid_nll"] == pytest.approx(other["valid_nll"], abs=1e-4)


@pytest.mark.parametrize(
    ("flags", "part"),
    [
        (
            {"model": "vdm", "prior": "gaussian", "likelihood": "gaussian", "estimator.kl-weight": 0.5},
            "need a p that tells p(x | tau) from p(tau)",
        ),
        ({"model": "mlp", "prior": "deep_energy", "estimator.free-bits": 0.5}, "lacks log Z"),
        ({"model": "mlp", "prior": "gaussian", "estimator.free-bits": -1}, "estimator.free-bits"),
        ({"model": "mlp", "prior": "gaussian", "estimator.kl-weight": 1.5}, "estimator.kl-weight"),
        ({"model": "mlp", "prior": "gaussian", "estimator.kl-weight": "half"}, "estimator.kl-weight"),
    ],
)
def test_what_cannot_be_eased_is_refused(cli: Cli, tiny: Words, flags: dict[str, Any], part: str) -> None:
    refused(cli(*tiny(without=WITHOUT, estimator="sgvb", **flags)), part)
    assert not Path("run").exists()
