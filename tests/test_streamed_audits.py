"""An audit takes many images part by part: the same findings as at once, and no more in memory than a part."""

from io import BytesIO

import pytest
import torch
from torch import Tensor, nn

from analysis.audit import audit
from analysis.checks import convergence, separation
from analysis.measure import rows
from analysis.measure.rows import Rows, in_parts
from analysis.measure.subject import prepare
from analysis.report.report import Report
from stabdeq.adapters import from_functions
from stabdeq.errors import FileError
from stabdeq.model import EquilibriumModel

CHECKS = ["equilibrium", "spectrum", "convergence", "iteration"]
DIM = 4


class Quadratic:
    """V = ||z||^2 around the origin, which no equilibrium here is at."""

    alpha = 0.1
    centre = "origin"

    def __call__(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        return offset.square().sum(1), 2 * offset


class Watched(nn.Module):
    """f(z, h) = z / 2 + h, which is NaN for images whose first pixel is below 0.1.

    ``largest`` is how many numbers it was given at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def forward(self, z: Tensor, h: Tensor) -> Tensor:
        self.largest = max(self.largest, z.numel())
        return torch.where(h[:, :1] < 0.1, torch.full_like(z, torch.nan), z / 2 + h)


def built() -> tuple[EquilibriumModel, Watched]:
    cell = Watched()
    model = from_functions(lambda x: x.flatten(1), cell, lambda z: z[:, :3], lyapunov=Quadratic())  # pyrefly: ignore
    return model, cell


def images(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(count, 1, 2, 2, generator=generator)  # float32, which an audit widens
    return pixels, torch.randint(3, (count,), generator=generator)


def judged(count: int, numbers: int, monkeypatch: pytest.MonkeyPatch) -> tuple[Report, int]:
    monkeypatch.setattr(rows, "NUMBERS", numbers)
    model, cell = built()
    return audit(model, *images(count), checks=CHECKS), cell.largest


def test_parts_give_the_findings_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convergence, "DRAWN", 10)
    whole, at_once = judged(30, 2**18, monkeypatch)
    parts, largest = judged(30, 32, monkeypatch)
    assert largest < at_once
    assert list(parts.named) == list(whole.named)
    assert {finding.verdict for finding in whole.findings} >= {"REFUTED", "INCONCLUSIVE"}
    for name, finding in whole.named.items():
        other = parts.named[name]
        assert (other.verdict, other.samples) == (finding.verdict, finding.samples), name
        if finding.margin is not None:
            assert other.margin == pytest.approx(finding.margin, rel=1e-6, abs=1e-9), name
        assert (other.witness or {}).get("image") == (finding.witness or {}).get("image"), name
    assert parts.sample == whole.sample
    assert parts.images == whole.images
    for item, other in zip(whole.measurements, parts.measurements, strict=True):
        if item.name != "a random state":  # whose draws go by parts
            assert other.text == item.text
    assert "drawn" not in whole.series["convergence"]
    assert parts.series["convergence"]["drawn"] == 16  # of parts of eight those that ten lie in


def test_distances_are_taken_between_so_many_as_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separation, "embedding", lambda subject: {})
    model, _ = built()
    (all_pairs,) = separation.check(prepare(model, *images(30))).measurements
    assert "between the first" not in all_pairs.text
    monkeypatch.setattr(separation, "PAIRED", 6)
    found = separation.check(prepare(model, *images(30)))
    assert "; between the first 6 equilibria" in found.measurements[0].text
    assert len(found.series["before"]) <= 3


def test_what_a_cell_is_given_at_once_does_not_grow_with_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    _, of_few = judged(40, 32, monkeypatch)
    _, of_many = judged(80, 32, monkeypatch)
    assert of_many == of_few


def test_features_images_and_states_lie_in_files_that_are_read_as_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = built()
    pixels, labels = images(30)
    whole = prepare(model, pixels, labels)
    monkeypatch.setattr(rows, "NUMBERS", 32)
    before = len(rows._mapped)
    parts = prepare(model, pixels, labels)
    assert len(rows._mapped) == before + 3
    for one, other in (
        (parts.images, whole.images),
        (parts.h, whole.h),
        (parts.equilibria, whole.equilibria),
    ):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)
    assert 0 < len(parts.found) < 30
    list(in_parts(30, DIM))  # gives the pages back
    assert torch.equal(parts.equilibria, whole.equilibria)


def test_parts_cover_all_rows_once_and_one_row_is_a_part_however_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "NUMBERS", 10)
    assert list(in_parts(5, 4)) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(in_parts(2, 100)) == [slice(0, 1), slice(1, 2)]
    assert list(in_parts(0, 4)) == []


def test_a_full_disk_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(BytesIO):
        def write(self, content: object) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(rows, "TemporaryFile", lambda prefix: Full())
    gathered = Rows()
    gathered.add(torch.zeros(2, 3))
    with pytest.raises(FileError, match=r"No space left on device.*TMPDIR"):
        gathered.add(torch.zeros(2, 3))
