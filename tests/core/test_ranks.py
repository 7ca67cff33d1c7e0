"""Two processes that share every batch, over gloo: the gradient is that of one, the order is one, the noise is not."""

import json
import runpy
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from unibound import ranks

SCRIPT = Path(__file__).with_name("ranks_at_work.py")


def at_work(count: int, store: Path) -> list[dict[str, Any]]:
    words = [[sys.executable, str(SCRIPT), str(rank), str(count), str(store)] for rank in range(count)]
    running = [subprocess.Popen(each, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for each in words]
    done = [process.communicate() for process in running]
    assert not any(process.returncode for process in running), done
    return [json.loads(out.splitlines()[-1]) for out, _ in done]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return at_work(2, tmp_path_factory.mktemp("ranks") / "store")


def test_the_gradient_is_that_of_one_with_the_whole_batch(two: list[dict[str, Any]]) -> None:
    alone = runpy.run_path(str(SCRIPT))["found"](0)  # in this process, which is a group of one
    whole = torch.tensor(alone["gradient"], dtype=torch.float64)
    assert whole.abs().max() > 0.1
    for found in two:  # of batches of three and two
        torch.testing.assert_close(torch.tensor(found["gradient"]).double(), whole, rtol=1e-5, atol=1e-6)
    assert two[0]["gradient"] == two[1]["gradient"]  # so that weights stay the same to the bit


def test_ranks_share_the_order_and_not_the_noise(two: list[dict[str, Any]]) -> None:
    first, second = two
    assert sorted(first["order"] + second["order"]) == list(range(11))
    assert len(first["order"]) - len(second["order"]) in (-1, 0, 1, -2, -3)
    assert first["few"] == second["few"] == [0.0]  # a batch that is too small to share is everybody's
    assert first["noise"] != second["noise"]


def test_evaluation_is_shared_and_leaves_the_generators_alike(two: list[dict[str, Any]]) -> None:
    first, second = two
    assert first["bounds"] == second["bounds"]
    assert len(first["bounds"]) == 60
    assert first["bounds"][:30] != first["bounds"][30:]  # the same data, with noise of their own
    assert first["alike"] == second["alike"]


def test_a_rank_with_other_data_ends_all_and_the_first_says_why(two: list[dict[str, Any]]) -> None:
    assert two[0]["said"] == "UsageError: rank 1 has other data than rank 0; give every machine the same"
    assert two[1]["said"].startswith("LostRankError")


def test_alone_nothing_is_shared() -> None:
    x = torch.ones(3, requires_grad=True)
    loss = x.sum()
    loss.backward()
    assert ranks.average([x], loss, 3) is loss
    assert ranks.share(7) == slice(0, 7)
    assert ranks.gather("own") == ["own"]
    before = torch.get_rng_state()
    ranks.part()
    with ranks.apart():
        assert torch.equal(torch.get_rng_state(), before)


def test_no_two_ranks_draw_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "size", lambda: 4)
    for way in (ranks.part, ranks.apart):
        drawn = set()
        for rank in range(4):
            monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
            torch.manual_seed(0)
            with way() or nullcontext():
                drawn.add(torch.rand(()).item())
        assert len(drawn) == 4


@pytest.mark.parametrize("count", [0, 1, 5, 11])
def test_shares_are_even_and_complete(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "size", lambda: 3)
    found = []
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        found.append(list(range(count)[ranks.share(count)]))
    assert [one for each in found for one in each] == list(range(count))
    assert max(map(len, found)) - min(map(len, found)) <= 1
