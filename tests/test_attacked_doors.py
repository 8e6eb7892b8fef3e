"""What plausible input once broke at a door."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from proof_mutations import prove
from torch import Tensor, nn

from analysis import verify as verify_module
from analysis.report.report import Report
from stabdeq.adapters import from_functions
from stabdeq.checker.door import check
from stabdeq.errors import ReportError


def test_radii_through_as_many_features_as_there_are_pixels_are_checked(tmp_path: Path) -> None:
    # The orthonormal layer is square then, and its other part a tensor of no columns.
    proved = prove(tmp_path, cell="certified", backbone="lipschitz-fcn", image_shape=(1, 2, 2), state_dim=4)
    assert "radius" in proved.report["claims"], proved.report["omitted"]
    assert any("radi" in said for said in check(proved.text.encode(), proved.checkpoint))


@pytest.mark.parametrize(("told", "now"), [([1.0], {"a": 1.0}), ([], {}), (True, 1.0), ({"a": [[]]}, {"a": [{}]})])
def test_a_number_of_another_type_is_told(told: Any, now: Any) -> None:
    (found,) = verify_module._numbers("numbers", {"it": told}, {"it": now})
    assert found.what == "numbers it"


def test_a_page_that_cannot_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "describe", lambda loaded: {})
    with (tmp_path / "report.html").open("wb") as page:
        page.truncate(2**31)  # takes no room
    with pytest.raises(ReportError, match=r"report\.html: larger than .* move it away"):
        list(verify_module._differences(Report(), Report(), SimpleNamespace(), tmp_path / "report.json"))


class _OwnModels(nn.Module):
    """A module that keeps models of its own methods."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.net = nn.Linear(2, 2)
        self.models = nn.ModuleList(from_functions(self.inject, self.cell, self.net) for _ in range(count))

    def inject(self, x: Tensor) -> Tensor:
        return self.net(x.flatten(1))

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        return torch.tanh(self.net(z)) / 2 + h


def test_torch_is_not_led_through_a_module_by_every_order_of_its_methods() -> None:
    module, seen = _OwnModels(3), list[nn.Module]()

    def see(one: nn.Module) -> None:
        seen.append(one)
        assert len(seen) < 2000, "led round by every order"

    module.apply(see)
    assert module.net in seen
    for model in module.models:
        model.double().eval()
        assert module.net.weight.dtype == torch.float64
        assert not module.net.training
        module.float().train()
        assert module.net.weight.dtype == torch.float32
        assert module.net.training
        assert len(list(model.parameters())) == len(list(module.parameters())) == 2
        assert any(one is module.net for _, one in model.named_modules(remove_duplicate=False))
