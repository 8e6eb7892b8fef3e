"""The indicators of robustness: each fires on a model or an attack made to trigger it, and none on a sound one."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.audit import audit
from analysis.checks.robustness import curve, derivatives, effort, equilibria, repeats, rivals
from analysis.checks.robustness.check import check
from analysis.checks.robustness.statistics import Paired, binomial_tail, can_fire, interval
from analysis.checks.robustness.target import BuildAttack, Target, pgd
from analysis.findings import Finding, Verdict
from analysis.findings.catalogue import default_checks
from analysis.measure.subject import prepare
from stabdeq.attacks import PGD, ClampNormalised
from stabdeq.attacks.threat_model import Adversarial
from stabdeq.config import ArchitectureConfig, DataConfig
from stabdeq.config.kinds import model_config
from stabdeq.data import load_data, to_unit
from stabdeq.errors import ConfigError
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Solution, Status

IMAGES = 48
MEAN, STD = 0.5, 0.25

Part = Callable[[Tensor], Tensor]


def same(values: Tensor) -> Tensor:
    return values


class Network(nn.Module):
    """An ordinary network as an equilibrium model, f(z, h) = h, with faults put ``before``, in ``within`` and ``after``."""

    lyapunov = None

    def __init__(self, network: nn.Module, before: Part = same, within: Part = same, after: Part = same) -> None:
        super().__init__()
        self.network, self.before, self.within, self.after = network, before, within, after

    def inject(self, x: Tensor) -> Tensor:
        return self.network((self.before(x) - MEAN) / STD)

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        return h

    def readout(self, z: Tensor) -> Tensor:
        return self.after(z)

    def solve(self, h: Tensor) -> Solution:
        return solution(self.within(h), Status.converged)


def solution(z: Tensor, status: Status) -> Solution:
    count = len(z)
    return Solution(z, z.new_zeros(count), torch.full((count,), int(status)), torch.ones(count, dtype=torch.int64))


class TwoSteps(Network):
    """A cell f(z, h) = h - 0.9 P z, of which the model's own solver takes two steps alone."""

    def cell(self, z: Tensor, h: Tensor) -> Tensor:
        return h - 0.9 * z.roll(1, dims=1)

    def readout(self, z: Tensor) -> Tensor:
        return z + 0.9 * z.roll(1, dims=1)

    def solve(self, h: Tensor) -> Solution:
        return solution(self.cell(self.cell(torch.zeros_like(h), h), h), Status.max_steps)


@cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, test images and labels, in float64."""
    data = load_data(DataConfig())
    return (
        to_unit(data.train.images, torch.float64),
        data.train.labels,
        to_unit(data.test.images, torch.float64),
        data.test.labels,
    )


@cache
def trained(seed: int = 0, convolutional: bool = False) -> nn.Module:
    """A small network that learnt the digits."""
    images, labels, _, _ = digits()
    torch.manual_seed(seed)
    layers = (
        [nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten()]
        if convolutional
        else [nn.Flatten(), nn.Linear(64, 48), nn.ReLU()]
    )
    network = nn.Sequential(*layers, nn.Linear(24 * 16 if convolutional else 48, 10)).double()
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(5 if convolutional else 20):
        for batch in torch.randperm(len(labels)).split(64):
            optimiser.zero_grad()
            functional.cross_entropy(network((images[batch] - MEAN) / STD), labels[batch]).backward()
            optimiser.step()
    return network.eval()


def target(model: Any, attack: BuildAttack = pgd, *, seed: int = 0, count: int = IMAGES) -> Target:
    _, _, images, labels = digits()
    which = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))[:count]
    return Target(prepare(model, images[which], labels[which], indices=which, seed=seed), attack)


def faulty(before: Part = same, within: Part = same, after: Part = same, **kwargs: Any) -> Target:
    return target(Network(trained(), before, within, after), **kwargs)


def findings(judged: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in judged}


def fires(finding: Finding) -> bool:
    """Whether it fired: with a witness, and with words that help."""
    if finding.verdict is not Verdict.REFUTED:
        return False
    assert "Remedy: " in finding.evidence
    assert finding.witness is not None
    return True


def replays(target: Target, finding: Finding) -> bool:
    """Whether the witness's attacked image, alone, is within eps of the image it names, and taken for what it says."""
    witness = finding.witness
    assert witness is not None
    position = target.subject.indices.tolist().index(witness["image"])
    image = target.images[position]
    attacked = torch.tensor(witness["attacked_image"], dtype=torch.float64).view_as(image)
    return (
        float((attacked - image).abs().max()) <= witness["eps"] + 1e-12
        and int(target.predict(attacked[None])) == witness["prediction_attacked"] != witness["label"]
    )


def compared(target: Target, level: float = 24.0) -> tuple[effort.Effort, rivals.Contest]:
    """The runs and the rivals' finds at one radius."""
    exerted = effort.exert(target, target.run(level / 255))
    return exerted, rivals.contest(target, exerted, target.right(target.images))


# --- statistics ---


def test_the_exact_tests_are_those_of_the_textbook() -> None:
    assert binomial_tail(0, 5) == 1
    assert binomial_tail(5, 5) == pytest.approx(1 / 32)
    assert binomial_tail(2, 3, 0.1) == pytest.approx(3 * 0.1**2 * 0.9 + 0.1**3)
    assert Paired(8, 1).p == pytest.approx(10 / 512)
    assert Paired(0, 0).p == 1
    first, second = torch.tensor([True, True, False, True]), torch.tensor([True, False, True, False])
    assert Paired.of(first, second) == Paired(2, 1)
    assert not can_fire(6)
    assert can_fire(7)
    low, high = interval(10, 100)
    assert (low, high) == pytest.approx((0.0490, 0.1762), abs=1e-4)  # Clopper and Pearson's own table
    assert interval(0, 5)[0] == 0
    assert interval(5, 5)[1] == 1


# --- nothing fires on sound models ---


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_are_silent_on_a_plain_network(seed: int) -> None:
    result = check(target(Network(trained(seed, convolutional=True)), seed=seed, count=64).subject)
    assert {finding.name: finding.evidence for finding in result.findings if finding.verdict != Verdict.SUPPORTED} == {}
    assert len({finding.name for finding in result.findings}) == len(result.findings) == 21
    assert all(finding.check == "robustness" and finding.samples for finding in result.findings)
    series = result.series
    assert series["eps"][0] == 0
    assert series["eps"][-1] == 1
    assert series["accuracy"][0] == series["clean"]
    assert series["accuracy"][-1] == 0
    assert all(
        low <= value <= high
        for low, value, high in zip(series["lower"], series["accuracy"], series["upper"], strict=True)
    )
    assert result.measurements[-1].value == series["worst"]


# --- each fires on what was made to trigger it ---


def staircase(x: Tensor) -> Tensor:
    return (x * 8).round() / 8


def test_quantised_images_have_no_gradient_and_square_breaks_them() -> None:
    """The gradient of rounding is zero everywhere: the attack is its random start."""
    blind = faulty(staircase)
    exerted, contest = compared(blind, 48)
    found = findings([*effort.judge(blind, exerted), *contest.findings])
    for name in ("gradients", "guide", "no gradients", "transfer from a stranger"):
        assert fires(found[name]), name
    assert replays(blind, found["no gradients"])
    assert replays(blind, found["transfer from a stranger"])
    assert int(contest.standing.sum()) < len(exerted.standing(blind.right(blind.images)))


def test_a_straight_through_gradient_is_no_slope() -> None:
    assert fires(derivatives.judge(faulty(lambda x: x + (staircase(x) - x).detach())))


@pytest.mark.parametrize(
    "within",
    [
        lambda h: h.detach() - 0.5 * (h - h.detach()),
        lambda h: h.detach() + torch.cat([h[:, :3], h[:, 3:].detach()], 1) - h.detach(),
        lambda h: h.detach() + 1.1 * (h - h.detach()),
    ],
    ids=["reversed", "partly detached", "a tenth too long"],
)
def test_wrong_gradients_are_no_slopes(within: Part) -> None:
    assert fires(derivatives.judge(faulty(within=within)))


def test_kinks_do_not_pass_for_wrong_gradients() -> None:
    """Each pixel's slope jumps between 0 and 2 a hundred times: a third of all difference quotients straddle a jump."""
    found = derivatives.judge(faulty(lambda x: x + 2e-2 * ((50 * x).frac() - 0.5).abs()))
    assert found.verdict is Verdict.SUPPORTED, found.evidence


def test_a_reversed_gradient_loses_to_everything() -> None:
    descending = faulty(within=lambda h: h.detach() - (h - h.detach()))
    exerted, contest = compared(descending)
    found = findings([*effort.judge(descending, exerted), *contest.findings])
    for name in ("guide", "no gradients", "another gradient"):
        assert fires(found[name]), name
    assert replays(descending, found["another gradient"])


def test_saturated_logits_blind_the_cross_entropy_but_not_another_loss() -> None:
    saturated = faulty(after=lambda logits: 1e4 * logits)
    exerted, contest = compared(saturated)
    found = findings([*effort.judge(saturated, exerted), *contest.findings])
    assert fires(found["gradients"])
    assert fires(found["another loss"])
    assert replays(saturated, found["another loss"])


def test_a_shattered_gradient_is_no_guide() -> None:
    """Ripples too small to change a prediction, whose slopes drown the model's own."""
    phase = 6 * torch.rand(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64).view(1, 1, 8, 8)
    shattered = faulty(lambda x: x + 1e-3 * torch.sin(1e5 * x + phase))
    exerted = effort.exert(shattered, shattered.run(24 / 255))
    assert fires(findings(effort.judge(shattered, exerted))["guide"])


def test_noise_inside_the_model_is_not_deterministic() -> None:
    noisy = faulty(lambda x: x + 0.2 * torch.randn_like(x))
    torch.manual_seed(0)
    assert fires(findings(repeats.judge(noisy, None))["deterministic"])
    assert fires(findings(curve.judge(noisy, curve.trace(noisy)))["eps = 0"])


def test_statistics_of_the_batch_couple_its_images() -> None:
    coupled = faulty(lambda x: x - x.mean(0) + MEAN)
    found = findings(repeats.judge(coupled, coupled.run(24 / 255)))
    assert fires(found["batch"])
    assert not fires(found["deterministic"])


def test_a_model_that_notices_gradients_is_two_models() -> None:
    """It hands out other logits where somebody differentiates it."""
    shy = faulty(after=lambda logits: logits.roll(1, dims=1) if torch.is_grad_enabled() else logits)
    found = findings(repeats.judge(shy, shy.run(24 / 255)))
    assert fires(found["same model"])
    assert not fires(found["deterministic"])


def test_a_solver_that_stops_early_gives_answers_of_no_equilibrium() -> None:
    early = target(TwoSteps(trained()))
    found = findings(equilibria.judge(early, early.run(8 / 255)))
    assert fires(found["solver"])
    assert fires(found["attacked equilibria"])
    witness = found["solver"].witness
    assert witness is not None
    assert witness["prediction_accurate"] != witness["prediction_attacked"]


class Hiding(StabilisedDEQ):
    """A stability module that changes no prediction and keeps its gradient to itself."""

    def readout(self, z: Tensor) -> Tensor:
        return self.head(z).detach() + 0 * z.sum(1, keepdim=True)


def test_the_twin_without_the_module_betrays_a_module_that_hides_the_gradient() -> None:
    torch.manual_seed(0)
    architecture = ArchitectureConfig(state_dim=16)
    shape = {"image_shape": (1, 8, 8), "classes": 10, "mean": (MEAN,), "std": (STD,)}
    model = Hiding(model_config("lyadeq-noorth", architecture, **shape)).double().eval()
    _, _, images, _ = digits()
    images = images[:IMAGES]
    with torch.no_grad():
        labels = model(images).argmax(1)  # untrained: its own answers are right
    hiding = Target(prepare(model, images, labels))
    _, contest = compared(hiding, 64)
    found = findings(contest.findings)
    assert fires(found["transfer from its twin"])
    assert replays(hiding, found["transfer from its twin"])


# --- attacks that are no good ---


@dataclass(frozen=True)
class Changed:
    """An attack whose images are changed afterwards by ``change(found, clean, generator)``."""

    attack: PGD
    change: Callable[[Tensor, Tensor, torch.Generator], Tensor]

    @property
    def eps(self) -> float:
        return self.attack.eps

    def __call__(self, model: Any, images: Tensor, labels: Tensor, *, generator: torch.Generator) -> Adversarial:
        found = self.attack(model, images, labels, generator=generator)
        return Adversarial(self.change(found.images, images, generator), found.nonfinite, found.zero)


def sound(eps: float, steps: int) -> PGD:
    return PGD(eps=eps, steps=steps, step_size=2.5 * eps / steps or None)


def clamped(eps: float, steps: int) -> ClampNormalised:
    return ClampNormalised(attack=sound(eps, steps), mean=(MEAN,), std=(STD,))


def test_clamping_after_normalisation_shows_at_eps_0_and_as_a_cliff() -> None:
    fault = faulty(attack=clamped, count=128)
    traced = curve.trace(fault)
    found = findings(curve.judge(fault, traced))
    assert fires(found["eps = 0"])
    assert fires(found["first drop"])
    assert int(traced.runs[0].right.sum()) < int(traced.clean.sum()) - 10
    witness = found["eps = 0"].witness
    assert witness is not None
    assert witness["eps"] == 0
    assert witness["prediction_attacked"] != witness["prediction_clean"]


def test_an_attack_that_gives_up_in_large_balls_is_not_monotone_and_fails_unbounded() -> None:
    lazy = faulty(attack=lambda eps, steps: sound(eps if eps < 0.2 else 1e-3, steps))
    found = findings(curve.judge(lazy, curve.trace(lazy)))
    assert fires(found["monotone"])
    assert replays(lazy, found["monotone"])
    assert fires(found["unbounded"])
    witness = found["unbounded"].witness
    assert witness is not None
    assert witness["other_prediction"] != witness["label"]
    assert witness["distance"] <= 1


def test_too_small_steps_are_found_too_few_and_worse_than_one() -> None:
    crawling = faulty(attack=lambda eps, steps: PGD(eps=eps, steps=steps, step_size=max(eps, 1e-9) / 40))
    exerted, _ = compared(crawling)
    assert fires(findings(effort.judge(crawling, exerted))["steps"])
    still = faulty(attack=lambda eps, steps: PGD(eps=eps, steps=steps, step_size=1e-9))
    exerted, contest = compared(still)
    found = findings(contest.findings)
    for name in ("single step", "no gradients", "another loss", "another gradient"):
        assert fires(found[name]), name
        assert replays(still, found[name])


def test_an_attack_that_depends_on_luck_needs_restarts() -> None:
    def forget(found: Tensor, clean: Tensor, generator: torch.Generator) -> Tensor:
        return torch.where(torch.rand(len(found), 1, 1, 1, generator=generator) < 0.5, found, clean)

    lucky = faulty(attack=lambda eps, steps: Changed(sound(eps, steps), forget))
    exerted = effort.exert(lucky, lucky.run(32 / 255))
    found = findings(effort.judge(lucky, exerted))
    assert fires(found["restarts"])
    assert replays(lucky, found["restarts"])
    assert fires(found["silent success"])


def test_an_attack_that_comes_back_from_its_success_is_silent() -> None:
    returning = faulty(attack=lambda eps, steps: Changed(sound(eps, steps), lambda found, clean, _: clean))
    run = returning.run(32 / 255)
    assert bool((run.passed & run.right).sum() > 7)
    assert fires(findings(effort.judge(returning, effort.exert(returning, run)))["silent success"])


def test_random_points_break_what_an_attack_that_stays_at_home_does_not() -> None:
    """Any image off the grid of grey levels is shown as its negative, and the attack comes back to the clean image."""
    bait = faulty(lambda x: torch.where(((x * 255).frac() > 1e-6).flatten(1).any(1).view(-1, 1, 1, 1), 1 - x, x))
    lured = Target(bait.subject, lambda eps, steps: Changed(sound(eps, steps), lambda found, clean, _: clean))
    _, contest = compared(lured)
    found = findings(contest.findings)
    assert fires(found["random points"])
    assert replays(lured, found["random points"])


# --- the check within an audit ---


def test_the_audit_runs_it_on_request_alone() -> None:
    """Its report is plain data, and its progress is told."""
    _, _, images, labels = digits()
    steps: list[str] = []
    report = audit(Network(trained()), images[:8], labels[:8], checks=["robustness"], on_check=steps.append)
    assert {finding.check for finding in report.findings} == {"robustness"}
    assert report.exit_code == 3  # too few images to compare anything
    assert steps[0] == "robustness"
    assert "robustness: the attack at every eps" in steps
    json.loads(report.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert "robustness" not in default_checks()
    with pytest.raises(ConfigError, match="did you mean 'robustness'"):
        audit(Network(trained()), images, labels, checks=["robustnes"])


def test_the_check_repeats_itself_and_leaves_the_global_generator_alone() -> None:
    subject = target(Network(trained()), count=8).subject
    torch.manual_seed(5)
    first = check(subject)
    following = torch.rand(())
    torch.manual_seed(5)
    assert torch.equal(torch.rand(()), following)
    second = check(subject)
    assert first.findings == second.findings
    assert first.series == second.series


# --- what cannot be judged stays open ---


def test_without_a_gradient_what_needs_one_is_left_open() -> None:
    result = check(faulty(lambda x: x.detach(), count=16).subject)
    found = findings(result.findings)
    assert set(found) == {"gradients", "deterministic", "batch"}
    assert found["gradients"].verdict is Verdict.INCONCLUSIVE
    assert "differentiable" in found["gradients"].evidence
    assert [measured.name for measured in result.measurements] == ["accuracy, clean", "accuracy, Square at eps = 8/255"]


def test_too_few_images_leave_comparisons_open() -> None:
    few = faulty(count=5)
    found = findings(effort.judge(few, effort.exert(few, few.run(8 / 255))))
    assert {found[name].verdict for name in ("steps", "restarts", "guide")} == {Verdict.INCONCLUSIVE}
    assert "--images" in found["steps"].evidence
