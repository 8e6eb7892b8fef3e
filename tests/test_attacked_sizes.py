"""Sizes, numbers and words that an attack on large states, parts and proofs from weights found wrong."""

from contextlib import suppress
from pathlib import Path

import pytest
import torch
from tiny_checkpoints import tiny_checkpoint, tiny_model

from analysis.findings.four_digits import at_most
from analysis.measure import rows as rows_of
from analysis.measure.contraction import Contraction
from analysis.measure.rows import Rows
from analysis.proofs.structure import growth, is_structured
from stabdeq.checkpoint import load_checkpoint, save_checkpoint
from stabdeq.config import LyapunovConfig
from stabdeq.errors import CheckpointError, FileError
from stabdeq.lyapunov import build_lyapunov


def lyapunov(**settings: object) -> torch.nn.Module:
    return build_lyapunov(LyapunovConfig(**settings), "equilibrium", 8, (2, 2, 2)).double()  # pyrefly: ignore


@pytest.mark.parametrize("name", ["alpha", "eta", "smoothing", "network.smoothing"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_a_v_whose_numbers_are_none_is_not_proved(name: str, value: float) -> None:
    function = lyapunov(hidden=2, network="convolutional")
    assert is_structured(function)  # pyrefly: ignore
    owner = function.network if "." in name else function
    setattr(owner, name.rpartition(".")[2], value)
    assert not is_structured(function)  # pyrefly: ignore


def test_the_bound_of_growth_that_is_said_is_not_below_the_one_that_is_proved() -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        function = lyapunov(hidden=3, network="separable")
        said = growth(function).rpartition("<= ")[2].split()[0]  # pyrefly: ignore
        assert float(said) >= function.growth_bound()  # pyrefly: ignore


def test_a_contraction_is_not_said_to_be_more_than_it_is_nor_to_be_none() -> None:
    assert f"contracts by {at_most(0.70004)} in the" in Contraction(0.70004, "maximum").words
    assert "contracts by 0.7001 in the" in Contraction(0.70004, "maximum").words
    assert "contracts by 1 - 2e-05 in the" in Contraction(1 - 2.00001e-5, "Euclidean").words


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.int64, torch.float64])
def test_rows_of_every_dtype_come_back_from_a_file(dtype: torch.dtype) -> None:
    parts = [torch.tensor([[1, 0], [0, 1]]).to(dtype), torch.tensor([[0, 0]]).to(dtype)]
    rows = Rows()
    for part in parts:
        rows.add(part)
    assert torch.equal(rows.gathered(), torch.cat(parts))


def test_rows_without_numbers_come_back() -> None:
    rows = Rows()
    for count in (2, 3):
        rows.add(torch.zeros(count, 0))
    assert rows.gathered().shape == (5, 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
def test_a_full_disk_is_told_where_the_rows_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    with suppress(OSError), Path("/dev/full").open("wb") as full:  # which cannot be closed either
        monkeypatch.setattr(rows_of, "TemporaryFile", lambda prefix: full)
        rows = Rows()
        rows.add(torch.zeros(1, 2))
        with pytest.raises(FileError) as told:
            rows.add(torch.zeros(1, 2))
    assert "TMPDIR" in str(told.value)


@pytest.mark.parametrize("network", ["separable", "convolutional"])
def test_a_file_may_not_ask_for_a_wide_v_at_many_places(network: str, tmp_path: Path) -> None:
    def saved(hidden: int) -> Path:
        model = tiny_model(
            "deq",
            image_shape=(1, 200, 200),
            backbone="conv",
            cell="convolution",
            state_dim=40_000,
            stability="anchored",
            lyapunov=LyapunovConfig(network=network, hidden=hidden),  # pyrefly: ignore
        )
        path = tmp_path / f"{hidden}.safetensors"
        save_checkpoint(path, tiny_checkpoint(model, recipe={}, optimiser={}))
        return path

    assert load_checkpoint(saved(104)).model.config.lyapunov.hidden == 104
    path = saved(105)
    with pytest.raises(CheckpointError, match=r"model\.lyapunov\.hidden = 105 at each of 200 x 200 places.*--trusted"):
        load_checkpoint(path)
    assert load_checkpoint(path, trusted=True).model.config.lyapunov.hidden == 105
