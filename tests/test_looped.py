"""Looped models: nested states, tokens and graphs, answers by token and by number; an honest reasoner told from one that cheats."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from command_runs import run
from torch import Tensor, nn
from torch.nn import functional

import stabdeq
from stabdeq.adapters import LoopedModel, from_functions, looped
from stabdeq.errors import ConfigError, DataError

TOKENS = torch.randint(5, (8, 3), generator=torch.Generator().manual_seed(0))
SORTED = TOKENS.sort(1).values


class Reasoner(nn.Module):
    """A low and a high state of four tokens' features, which contract; with ``cheats``, a cycle that ignores them."""

    def __init__(self, seed: int = 0, *, cheats: bool = False) -> None:
        super().__init__()
        self.cheats = cheats
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embedding, self.decoder = nn.Embedding(5, 4), nn.Linear(4, 5)
            self.mix, self.layer = nn.Linear(3, 3), nn.Linear(4, 4)

    def start(self, question: Tensor) -> dict[str, Tensor]:
        return {"low": torch.zeros_like(question), "high": torch.zeros_like(question)}

    def step(self, x: Tensor) -> Tensor:
        return 0.5 * torch.tanh(self.layer(self.mix(x.mT).mT))

    def cycle(self, state: dict[str, Tensor], question: Tensor) -> dict[str, Tensor]:
        state = self.start(question) if self.cheats else state
        low = self.step(state["low"] + state["high"] + question)
        return {"low": low, "high": self.step(state["high"] + low) + question}

    def answer(self, state: dict[str, Tensor]) -> Tensor:
        return self.decoder(state["high"])


def adapted(seed: int = 0, *, cheats: bool = False, loops: int = 40) -> LoopedModel:
    reasoner = Reasoner(seed, cheats=cheats)
    return looped(reasoner.cycle, reasoner.embedding, reasoner.answer, start=reasoner.start, loops=loops)


def test_a_state_begins_at_zeros_of_the_features_whatever_they_are_made_of() -> None:
    reasoner = Reasoner()

    def injection(x: Tensor) -> dict[str, Tensor]:
        return {"low": reasoner.embedding(x), "high": reasoner.embedding(x)}

    def block(state: dict[str, Tensor], features: dict[str, Tensor]) -> dict[str, Tensor]:
        return reasoner.cycle(state, features["low"])

    model, given = looped(block, injection, reasoner.answer, loops=5), adapted(loops=5)
    assert torch.equal(model(TOKENS), given(TOKENS))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_honest_reasoner_is_told_from_one_that_ignores_its_states(seed: int) -> None:
    for cheats in (False, True):
        model = adapted(seed, cheats=cheats)
        report = stabdeq.audit(model, TOKENS, SORTED, checks=["iteration"], seed=seed)
        verdicts = {name: str(finding.verdict) for name, finding in report.named.items()}
        assert verdicts["iteration.state"] == ("REFUTED" if cheats else "SUPPORTED")
        accuracy = {item.name: item.value for item in report.measurements}
        assert (accuracy["one evaluation from 0"] == accuracy["the equilibrium"]) or not cheats
        assert model.parts["injection"].weight.dtype == torch.float32  # left as it was


def test_nested_states_are_one_for_all_checks() -> None:
    model = adapted()
    h = model.inject(TOKENS)
    solution = model.solve(h)
    assert (h.shape, solution.z.shape) == ((8, 3, 4), (8, 24))
    assert bool(solution.converged.all())
    assert int(solution.evaluations.max()) < 40
    state = {"low": torch.zeros(8, 3, 4), "high": torch.zeros(8, 3, 4)}
    reasoner = Reasoner()
    for _ in range(40):
        state = reasoner.cycle(state, h)
    torch.testing.assert_close(model(TOKENS), reasoner.answer(state))
    report = stabdeq.audit(model, TOKENS, SORTED, checks=["equilibrium", "separation"])
    assert report.named["equilibrium.unique"].verdict == "SUPPORTED"
    assert {item.check: item.reason for item in report.skipped}["separation"].endswith("the model's answers are tokens")
    hasty = adapted(loops=1)
    early = hasty.solve(hasty.inject(TOKENS))
    assert not bool(early.converged.any())
    assert early.evaluations.tolist() == [1] * 8


def test_the_gradient_passes_through_all_applications() -> None:
    block = nn.Linear(3, 3)
    model = looped(lambda z, h: torch.tanh(block(z)) + h, lambda x: x.flatten(1), lambda z: z, loops=3)
    x = torch.rand(2, 3, requires_grad=True)
    z = torch.zeros(2, 3)
    for _ in range(3):
        z = torch.tanh(block(z)) + x
    expected = torch.autograd.grad(z.sum(), (x, block.weight))
    torch.testing.assert_close(torch.autograd.grad(model(x).sum(), (x, block.weight)), expected)


def test_an_answer_of_which_one_token_changes_is_another_answer() -> None:
    def readout(z: Tensor) -> Tensor:
        return torch.stack([z - 1.5, 1.5 - z], 2)

    model = looped(lambda z, h: 0.5 * z + h, lambda x: x.double(), readout, loops=1)
    inputs = torch.tensor([[0, 1]] * 4)  # rests at 0 and 2, and is at 0 and 1 after one application
    finding = stabdeq.audit(model, inputs, torch.ones_like(inputs), checks=["iteration"]).named["iteration.longer"]
    assert finding.verdict == "REFUTED"
    assert "At 4 of 4 images" in finding.evidence
    assert stabdeq.audit(model, inputs, torch.ones_like(inputs), checks=["iteration"]).sample["right"] == 4


def test_an_implicit_graph_network_has_its_adjacency_as_context() -> None:
    generator = torch.Generator().manual_seed(0)
    edges = (torch.rand(6, 4, 4, generator=generator) > 0.5).float()
    inputs = torch.cat([edges, torch.rand(6, 4, 2, generator=generator)], 2)
    matrix = 0.2 * torch.randn(2, 2, generator=generator).double()

    def injection(x: Tensor) -> dict[str, Tensor]:
        return {"adjacency": x[..., :4] / 4, "nodes": x[..., 4:]}

    def block(z: Tensor, graph: dict[str, Tensor]) -> Tensor:
        return torch.relu(graph["adjacency"] @ z @ matrix) + graph["nodes"]

    model = looped(
        block, injection, lambda z: z.mean(1), loops=30, start=lambda graph: torch.zeros_like(graph["nodes"])
    )
    report = stabdeq.audit(model, inputs, torch.arange(6) % 2, checks=["equilibrium", "iteration", "convergence"])
    assert {str(finding.verdict) for finding in report.named.values()} == {"SUPPORTED"}


def test_a_multiscale_model_has_a_state_of_several_resolutions() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder, fine, coarse = (
            nn.Conv2d(1, 2, 3, padding=1),
            nn.Conv2d(4, 2, 3, padding=1),
            nn.Conv2d(5, 3, 3, padding=1),
        )
        up, decoder = nn.Conv2d(3, 2, 1), nn.Linear(5, 3)
        images = torch.rand(4, 1, 4, 4)

    def start(h: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(h), h.new_zeros(len(h), 3, 2, 2)

    def fuse(state: tuple[Tensor, Tensor], h: Tensor) -> tuple[Tensor, Tensor]:
        above = functional.interpolate(up(state[1]), scale_factor=2.0)
        below = functional.avg_pool2d(state[0], 2)
        return (
            torch.tanh(0.5 * fine(torch.cat([state[0], above], 1)) + h),
            torch.tanh(0.5 * coarse(torch.cat([state[1], below], 1))),
        )

    def answer(state: tuple[Tensor, Tensor]) -> Tensor:
        return decoder(torch.cat([part.mean((2, 3)) for part in state], 1))

    model = looped(fuse, encoder, answer, start=start, loops=60)
    state = start(encoder(images))
    for _ in range(60):
        state = fuse(state, encoder(images))
    torch.testing.assert_close(model(images), answer(state))
    report = stabdeq.audit(model, images, torch.arange(4) % 3, checks=["equilibrium", "spectrum", "iteration"])
    assert len(report.series["spectrum"]["eigenvalues"]) == 4 * (2 * 16 + 3 * 4)
    assert {str(finding.verdict) for finding in report.named.values()} == {"SUPPORTED"}


def test_claims_that_need_classes_step_aside_where_the_answers_are_numbers() -> None:
    model = from_functions(lambda x: x, lambda z, h: 0.5 * torch.tanh(z) + h, lambda z: z[:, :2], tolerance=1e-2)
    inputs = 3 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    checks = ["equilibrium", "separation", "convergence", "iteration", "robustness"]
    report = stabdeq.audit(model, inputs, torch.rand(6, 2), checks=checks)
    reasons = {item.check: item.reason for item in report.skipped}
    for check in ("separation", "iteration"):
        assert reasons[check] == "it compares classes, and the model's answers are numbers"
    assert "attack changes pixels" in reasons["robustness"]
    assert report.exit_code == 0
    assert "what is read from them differs by at most" in report.named["convergence.own solver"].evidence
    compared = stabdeq.compare_solvers(model, None, inputs, torch.rand(6, 2), tolerances=(1e-3,), evaluations=20)
    assert compared.records["anderson"].reached[0].solution.converged.all()


def test_a_witness_among_tokens_holds_them(tmp_path: Path) -> None:
    report = stabdeq.audit(adapted(cheats=True), TOKENS, SORTED, checks=["iteration"])
    witness = report.named["iteration.state"].witness
    assert witness is not None
    held = report.images[str(witness["image"])]
    assert held == {"label": SORTED[witness["image"]].tolist(), "input": TOKENS[witness["image"]].tolist()}
    assert [path.exists() for path in report.save(tmp_path)] == [True, True]


def test_inputs_and_labels_that_do_not_fit_are_refused() -> None:
    def refused(inputs: Tensor, labels: Tensor, said: str) -> None:
        with pytest.raises(DataError, match=said):
            stabdeq.audit(adapted(), inputs, labels, checks=["equilibrium"])

    refused(TOKENS, SORTED[:, 0], r"readout gave \(1, 3, 5\) for one input, with labels \(8,\)")
    refused(TOKENS, SORTED.double(), "with whole numbers")
    rounded = SORTED[:, 0].double()
    with pytest.raises(DataError, match=r"of numbers as many as it gives, labels \(8, 1\)"):
        stabdeq.audit(looped(lambda z, h: h / 2, lambda x: x.double(), lambda z: z[:, :1], loops=2), TOKENS, rounded)
    refused(TOKENS, SORTED + 3, "labels from 3 to 7 for a model of 5 classes")
    refused(TOKENS, SORTED[:5], r"got \(8, 3\), \(5, 3\)")
    refused(TOKENS * 1j, SORTED, "view_as_real")
    refused(TOKENS / torch.zeros(8, 3), SORTED, "NaN or infinite")
    with pytest.raises(ConfigError, match="loops=0"):
        adapted(loops=0)
    with pytest.raises(ConfigError, match="call inject"):
        adapted().cell(torch.zeros(1, 24), torch.zeros(1, 3, 4))
    with pytest.raises(ConfigError, match=r"state\['n'\] is a int: .* write its tensors"):
        looped(lambda z, h: z, lambda x: x, lambda z: z, loops=1, start=lambda h: {"z": h, "n": 1}).inject(
            torch.ones(1, 1)
        )


MODULE = """
import test_looped

def make():
    return test_looped.adapted()
"""


@pytest.fixture
def own(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module in the current folder, beside tokens.npz."""
    name = f"looped_{abs(hash(folder))}"
    (folder / f"{name}.py").write_text(MODULE)
    np.savez(folder / "tokens.npz", inputs=TOKENS.numpy().astype(np.uint8), labels=SORTED.numpy().astype(np.int16))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return f"{name}:make"


def test_tokens_from_a_file_are_audited_and_not_attacked(own: str, folder: Path, refusal: Callable[..., str]) -> None:
    assert run("audit", own, "--images", "tokens.npz", "--images", "5", "--checks", "iteration,robustness") == 0
    report = json.loads((folder / "audit" / "report.json").read_text())
    assert {finding["check"] for finding in report["findings"]} == {"iteration"}
    assert "an attack changes pixels" in refusal("attack", own, "--images", "tokens.npz")
    np.savez(folder / "wrong.npz", inputs=TOKENS.numpy(), labels=SORTED.numpy()[:3])
    assert "expected as many" in refusal("audit", own, "--images", "wrong.npz")
    np.savez(folder / "named.npz", images=TOKENS.numpy(), labels=SORTED.numpy())
    assert "are the array 'inputs'" in refusal("audit", own, "--images", "named.npz")


def test_the_reasoners_of_the_example_are_trained_and_told_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "examples")
    import recursive_reasoner

    with torch.random.fork_rng():
        assert recursive_reasoner.main(steps=2) == 0
    for name, code in (("honest", "SUPPORTED"), ("cheating", "REFUTED")):
        tokens, target = recursive_reasoner.sorting(2, 0)
        report = stabdeq.audit(getattr(recursive_reasoner, name)(), tokens, target, checks=["iteration"])
        assert report.named["iteration.state"].verdict == code
    assert np.load(folder / "sorting.npz")["inputs"].shape == (256, 5)
