"""The cell and its BatchNorm statistics, heads, backbones, kinds, and the models composed of them."""

import shutil
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy

from stabdeq.cells import Cell
from stabdeq.cells.batchnorm import BatchStatistics, EquilibriumBatchNorm
from stabdeq.config import ArchitectureConfig, LyapunovConfig, ModelConfig, SolverConfig
from stabdeq.errors import ConfigError, DataError
from stabdeq.heads import Head
from stabdeq.kinds import KINDS, kind_of, model_config
from stabdeq.lyapunov import InputConvexLyapunov, centre_of, stabilise, stabilised_field
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Anderson, Broyden, Picard, Solver, Status, relative_residual, solve

SHAPE = (1, 4, 4)
DIM = 6
TIGHT = SolverConfig(tolerance=1e-11, max_evaluations=400)
WITH_EQUILIBRIUM = [name for name, kind in KINDS.items() if kind.cell != "constant"]
RUNNING = [
    "inner_norm.running_mean",
    "inner_norm.running_variance",
    "outer_norm.running_mean",
    "outer_norm.running_variance",
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 8, *, shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> Tensor:
    return torch.rand(count, *shape, generator=generator(seed))


def settings(kind: str = "deq", **changes: Any) -> ModelConfig:
    architecture = ArchitectureConfig(state_dim=DIM, lyapunov=LyapunovConfig(hidden=5))
    config = model_config(kind, architecture, image_shape=SHAPE, classes=3, mean=(0.4,), std=(0.3,))
    return replace(config, **changes)


def model(kind: str = "deq", *, seed: int = 0, **changes: Any) -> StabilisedDEQ:
    torch.manual_seed(seed)
    return StabilisedDEQ(settings(kind, **changes))


def running(cell: Cell) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in cell.state_dict().items() if name in RUNNING}


def trained_statistics(network: StabilisedDEQ) -> StabilisedDEQ:
    """In evaluation mode, with running statistics that belong to its images: 20 passes without a step."""
    network.train()
    for seed in range(20):
        network.predict(images(32, seed=seed).to(network.mean.dtype))
    return network.eval()


# BatchNorm inside the cell


def test_statistics_at_the_equilibrium_are_those_of_pytorchs_batch_norm() -> None:
    """The cell of Eq. 11 from PyTorch's own layers, run once at the equilibrium: the same output and running statistics."""
    network = model(solver=TIGHT).double().train()
    cell = network.cell
    inner_norm, outer_norm = nn.BatchNorm1d(DIM).double(), nn.BatchNorm1d(DIM).double()
    for theirs, ours in ((inner_norm, cell.inner_norm), (outer_norm, cell.outer_norm)):
        theirs.load_state_dict({"weight": ours.weight, "bias": ours.bias}, strict=False)
    for seed in range(3):
        prediction = network.predict(images(seed=seed).double())
        z, h = prediction.solution.z.detach(), prediction.h.detach()
        image = outer_norm(torch.relu(h + cell.outer(inner_norm(torch.relu(cell.inner(z))))))
        torch.testing.assert_close(image, z, rtol=0, atol=1e-9)
        for theirs, ours in ((inner_norm, cell.inner_norm), (outer_norm, cell.outer_norm)):
            torch.testing.assert_close(ours.running_mean, theirs.running_mean, rtol=1e-12, atol=1e-14)
            torch.testing.assert_close(ours.running_variance, theirs.running_var, rtol=1e-12, atol=1e-14)


def test_evaluation_mode_normalises_as_pytorch_does() -> None:
    ours, theirs = EquilibriumBatchNorm(3, gain=0.7).eval(), nn.BatchNorm1d(3).eval()
    with torch.no_grad():
        ours.running_mean.copy_(torch.tensor([1.0, -2.0, 0.5]))
        ours.running_variance.copy_(torch.tensor([0.1, 2.0, 1.0]))
        theirs.running_mean.copy_(ours.running_mean)
        theirs.running_var.copy_(ours.running_variance)
        theirs.weight.fill_(0.7)
    x = torch.randn(5, 3, generator=generator())
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", ["anderson", "broyden", "picard"])
@pytest.mark.parametrize("budget", [1, 3, 40])
@pytest.mark.parametrize("gradients", [False, True])
def test_running_statistics_change_once_per_training_pass(name: str, budget: int, gradients: bool) -> None:
    """However often the solver evaluates the cell, and the backward pass after it."""
    network = model(solver=SolverConfig(name=name, tolerance=1e-5, max_evaluations=budget)).train()
    updates = []
    network.cell.update_running_statistics = lambda statistics: updates.append(statistics)
    before = running(network.cell)
    with torch.set_grad_enabled(gradients):
        prediction = network.predict(images())
    if gradients:
        cross_entropy(prediction.logits, torch.arange(8) % 3).backward()
    assert len(updates) == 1
    after = running(network.cell)
    assert all(torch.equal(before[name], after[name]) for name in RUNNING)
    Cell.update_running_statistics(network.cell, updates[0])
    assert not any(torch.equal(before[name], running(network.cell)[name]) for name in RUNNING)


def test_update_formula() -> None:
    """New = 0.9 old + 0.1 batch, the variance with Bessel's correction."""
    norm = EquilibriumBatchNorm(2)
    norm.update(BatchStatistics(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 6.0]), 4))
    torch.testing.assert_close(norm.running_mean, torch.tensor([0.1, 0.2]))
    torch.testing.assert_close(norm.running_variance, torch.tensor([0.9 + 0.4, 0.9 + 0.8]))


def test_evaluation_mode_changes_nothing() -> None:
    network = model("lyadeq-anchored").eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    cross_entropy(network(images()), torch.arange(8) % 3).backward()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_fixed_statistics_keep_the_equilibrium() -> None:
    network = model(solver=TIGHT).double().train()
    with torch.no_grad():
        h = network.inject(images().double())
        solution = network.solve(h)
        assert solution.converged.all()
        z = solution.z
        statistics = network.cell.statistics(z, h)
        fixed = network.cell(z, h, statistics)
        torch.testing.assert_close(fixed, network.cell(z, h), rtol=1e-12, atol=1e-12)
        assert (relative_residual(z, fixed) <= 1e-10).all()
        # With the statistics fixed samples no longer see one another.
        moved = network.cell(z, h.index_fill(0, torch.tensor([0]), 0.0), statistics)
        assert torch.equal(moved[1:], fixed[1:])
        assert not torch.equal(network.cell(z, h.index_fill(0, torch.tensor([0]), 0.0))[1:], fixed[1:])


def test_training_batches_are_solved_together() -> None:
    network = model(solver=SolverConfig(tolerance=1e-5, max_evaluations=60)).train()
    solution = network.predict(images(16)).solution
    assert solution.converged.all()
    assert len(set(solution.evaluations.tolist())) == 1
    z, h = solution.z.detach(), network.inject(images(16)).detach()
    torch.testing.assert_close(solution.residual, relative_residual(z, network.cell(z, h)), rtol=1e-3, atol=1e-8)


# Whole models


@pytest.mark.parametrize("kind", WITH_EQUILIBRIUM)
def test_kinds(kind: str) -> None:
    network = model(kind).train()
    assert kind_of(network.config) == kind
    prediction = network.predict(images())
    assert prediction.logits.shape == (8, 3)
    assert prediction.h.shape == prediction.solution.z.shape == (8, DIM)
    cross_entropy(prediction.logits, torch.arange(8) % 3).backward()
    assert prediction.solution.adjoint[0].residual.isfinite().all()
    for name, parameter in network.named_parameters():
        if name.startswith("lyapunov") and kind == "lyadeq-anchored":
            assert parameter.grad is None  # V does not act on the prediction; the decay term of the loss trains it
        else:
            assert parameter.grad.isfinite().all(), name
    assert (network.lyapunov is None) == (KINDS[kind].stability == "none")
    assert (network.head.rotation is None) == (KINDS[kind].head == "linear")


def test_centres_of_the_kinds() -> None:
    equilibrium = torch.ones(2, DIM)
    anchored, paper = model("lyadeq-anchored").lyapunov, model("lyadeq").lyapunov
    assert torch.equal(centre_of(anchored, equilibrium), equilibrium)
    assert torch.equal(centre_of(paper, equilibrium), torch.zeros(2, DIM))


@pytest.mark.parametrize("kind", WITH_EQUILIBRIUM)
def test_samples_are_independent_in_evaluation_mode(kind: str) -> None:
    network = trained_statistics(model(kind, solver=TIGHT).double())
    with torch.no_grad():
        together = network.predict(images().double())
        assert together.solution.converged.all()
        for i in range(8):
            alone = network.predict(images().double()[i : i + 1])
            torch.testing.assert_close(alone.logits[0], together.logits[i], rtol=0, atol=1e-9)
            torch.testing.assert_close(alone.solution.z[0], together.solution.z[i], rtol=0, atol=1e-9)


def test_a_bad_image_leaves_its_neighbours_alone() -> None:
    network = trained_statistics(model("lyadeq-anchored"))
    x = images()
    with torch.no_grad():
        clean = network.predict(x)
        x[3] = torch.nan
        spoilt = network.predict(x)
    others = torch.arange(8) != 3
    assert torch.equal(spoilt.logits[others], clean.logits[others])
    assert torch.equal(spoilt.solution.status[others], clean.solution.status[others])
    assert not spoilt.solution.converged[3]


@pytest.mark.parametrize("kind", ["deq", "lyadeq", "lyadeq-noorth", "lyadeq-anchored"])
def test_input_gradients_in_evaluation_mode(kind: str) -> None:
    """What attacks need."""
    network = trained_statistics(model(kind, solver=SolverConfig(tolerance=1e-13, max_evaluations=400)).double())
    x = images(3).double().requires_grad_()
    assert gradcheck(network, (x,), atol=1e-5, fast_mode=True)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_parameter_gradients_in_training_mode() -> None:
    """Coupled by BatchNorm: the adjoint equation is that of the whole batch."""
    network = model("lyadeq", solver=SolverConfig(tolerance=1e-13, max_evaluations=400)).double().train()
    x, labels = images(5).double(), torch.arange(5) % 3

    def loss() -> Tensor:
        return cross_entropy(network(x), labels)

    loss().backward()
    step = 1e-5
    for name in ("cell.inner.weight", "cell.inner_norm.weight", "cell.outer.bias", "backbone.1.weight"):
        parameter = network.get_parameter(name)
        direction = torch.randn(parameter.shape, generator=generator(), dtype=torch.float64)
        with torch.no_grad():
            parameter += step * direction
            above = loss()
            parameter -= 2 * step * direction
            below = loss()
            parameter += step * direction
        slope = (above - below) / (2 * step)
        expected = (parameter.grad * direction).sum()
        torch.testing.assert_close(expected, slope, rtol=1e-5, atol=1e-8, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("shape", [(8, 1, 4, 5), (8, 2, 4, 4), (1, 4, 4), (8, 16)])
def test_images_of_another_size_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"reads images \(B, 1, 4, 4\), not"):
        model().eval()(torch.zeros(shape))


def test_normalisation_is_inside() -> None:
    network = model().eval()
    same = replace(settings(), mean=(0.0,), std=(1.0,))
    plain = StabilisedDEQ(same).eval()
    plain.load_state_dict(network.state_dict() | {"mean": plain.mean, "std": plain.std})
    x = images()
    assert torch.equal(network.inject(x), plain.inject((x - network.mean) / network.std))


def test_mean_and_std_must_fit_the_channels() -> None:
    with pytest.raises(ConfigError, match="one number for each of 1 channels"):
        StabilisedDEQ(settings(mean=(0.5, 0.5)))


def test_backbone_alone_runs_in_bfloat16() -> None:
    network = model("lyadeq-anchored").eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        h = network.inject(images())
    assert h.dtype == torch.float32
    with torch.no_grad():
        torch.testing.assert_close(h, network.inject(images()), rtol=0, atol=0.05)


def test_empty_batch() -> None:
    for kind in WITH_EQUILIBRIUM:
        assert model(kind).eval()(images(0)).shape == (0, 3)


def test_equilibrium_without_gradients_carries_none() -> None:
    network = model().eval()
    with torch.no_grad():
        assert not network.predict(images()).solution.z.requires_grad
    assert network.predict(images()).solution.z.requires_grad


# Stability modules


class Quadratic(InputConvexLyapunov):
    """V = eta ||z||^2."""

    def forward(self, offset: Tensor) -> tuple[Tensor, Tensor]:
        return self.eta * offset.square().sum(1), 2 * self.eta * offset


def quadratic(alpha: float, centre: str = "origin") -> Quadratic:
    return Quadratic(DIM, LyapunovConfig(alpha=alpha, eta=0.3), centre)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 8.0])
def test_state_reading_of_a_quadratic_is_a_scaling(alpha: float) -> None:
    z = torch.randn(20, DIM, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(stabilise(z, "state", quadratic(alpha)), -alpha / 2 * z)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 8.0])
def test_residual_reading_of_a_quadratic_is_a_scaling(alpha: float) -> None:
    z = torch.randn(20, DIM, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(stabilise(z, "residual", quadratic(alpha)), (1 - alpha / 2) * z)


def test_readings_of_a_learned_function() -> None:
    """By their formulas: the projection of z at z, and z - alpha V grad V / ||grad V||^2."""
    torch.manual_seed(0)
    function = InputConvexLyapunov(DIM, LyapunovConfig(hidden=5, alpha=0.7), "origin").double()
    z = torch.randn(20, DIM, generator=generator(), dtype=torch.float64)
    value, gradient = function(z)
    unit = gradient / gradient.square().sum(1, keepdim=True)
    excess = (gradient * z).sum(1) + 0.7 * value
    assert (excess > 0).all()  # grad V . z >= V >= 0: it always acts
    torch.testing.assert_close(stabilise(z, "state", function), z - unit * excess[:, None])
    torch.testing.assert_close(stabilise(z, "residual", function), z - unit * 0.7 * value[:, None])


@pytest.mark.parametrize("stability", ["none", "anchored"])
def test_anchored_leaves_the_equilibrium_alone(stability: str) -> None:
    z = torch.randn(5, DIM, generator=generator())
    assert stabilise(z, stability, quadratic(1.0, "equilibrium")) is z
    assert stabilise(z, "none", None) is z


def test_anchored_field_rests_at_the_equilibrium_alone() -> None:
    network = trained_statistics(model("lyadeq-anchored", solver=TIGHT).double())
    with torch.no_grad():
        h = network.inject(images().double())
        centre = network.solve(h).z
        field = network.cell(centre, h) - centre
        assert torch.equal(stabilised_field(field, centre, centre, network.lyapunov), field)
        for size in (1e-6, 1e-2, 1.0, 100.0):
            z = centre + size * torch.randn(8, DIM, generator=generator(), dtype=torch.float64)
            speed = stabilised_field(network.cell(z, h) - z, z, centre, network.lyapunov).norm(dim=1)
            # grad V . F^ <= -alpha V and ||grad V|| <= 2 k |z - c|, V >= eta |z - c|^2.
            slowest = network.lyapunov.alpha * network.lyapunov.eta / (2 * network.lyapunov.growth_bound())
            assert (speed >= slowest * (z - centre).norm(dim=1) * (1 - 1e-9)).all()


# Heads


@pytest.mark.parametrize("name", ["orthogonal", "orthogonal-direct"])
@pytest.mark.parametrize(("features", "classes"), [(DIM, 3), (64, 10)])
def test_orthogonal_weight(name: str, features: int, classes: int) -> None:
    torch.manual_seed(0)
    head = Head(name, features, classes)
    layer = head.rotation if name == "orthogonal" else head.classifier
    rows = layer.weight.shape[0]
    assert layer.weight.shape == ((features, features) if name == "orthogonal" else (classes, features))
    with torch.no_grad():
        for parameter in layer.parametrizations.weight.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=generator())  # as a step of training would
    for width, bound in ((torch.float32, 1e-5), (torch.float64, 1e-13)):
        weight = head.to(width) and layer.weight
        assert (weight @ weight.T - torch.eye(rows, dtype=width)).abs().max() < bound


def test_orthogonal_head_keeps_distances() -> None:
    head = Head("orthogonal", DIM, 3).double()
    z = torch.randn(10, DIM, generator=generator(), dtype=torch.float64)
    torch.testing.assert_close(torch.cdist(head.rotate(z), head.rotate(z)), torch.cdist(z, z))
    assert Head("linear", DIM, 3).rotate(z) is z


def test_orthogonal_direct_needs_features_for_its_classes() -> None:
    with pytest.raises(ConfigError, match="not 6 for 7: use head orthogonal"):
        Head("orthogonal-direct", 6, 7)


# Kinds


def test_the_kinds() -> None:
    networks = ["resnet20", "resnet56", "vgg16", "wrn-28-10"]
    assert [name for name in KINDS if name not in networks] == WITH_EQUILIBRIUM
    assert [name for name, kind in KINDS.items() if kind.backbone == name] == networks
    assert WITH_EQUILIBRIUM[:5] == ["deq", "deq-orth", "lyadeq-noorth", "lyadeq", "lyadeq-anchored"]
    for name in KINDS:
        assert kind_of(configured(name)) == name


def test_a_network_brings_its_own_backbone_and_width() -> None:
    config = configured("vgg16", backbone="resnet20", state_dim=7)
    assert (config.backbone, config.cell, config.state_dim, config.stability) == ("vgg16", "constant", 512, "none")


def configured(kind: str, **architecture: Any) -> ModelConfig:
    return model_config(kind, ArchitectureConfig(**architecture), image_shape=SHAPE, classes=3, mean=(0.5,), std=(0.5,))


def test_variants_of_a_kind() -> None:
    config = configured("lyadeq", stability="residual", head="orthogonal-direct")
    assert (config.stability, config.head) == ("residual", "orthogonal-direct")
    assert kind_of(config) == "lyadeq"
    assert kind_of(settings(stability="residual")) == "lyadeq-noorth"
    assert kind_of(settings(stability="anchored")) == "anchored stability, linear head"


def test_the_cell_of_a_kind() -> None:
    assert kind_of(configured("lyadeq", cell="certified")) == "lyadeq, certified cell"
    assert kind_of(configured("deq", cell="monotone")) == kind_of(configured("mondeq")) == "mondeq"
    assert kind_of(settings(stability="anchored", cell="interval")) == "anchored stability, linear head, interval cell"
    assert kind_of(settings(cell="constant")) == "deq, constant cell"


@pytest.mark.parametrize(
    ("kind", "architecture", "message"),
    [
        ("deq", {"stability": "anchored"}, "kind deq has stability none, not anchored"),
        ("deq", {"head": "orthogonal"}, "kind deq has head linear, not orthogonal"),
        ("lyadeq", {"stability": "anchored"}, "kind lyadeq has stability state or residual, not anchored"),
        ("lyadeq-anchored", {"head": "linear"}, "has head orthogonal or orthogonal-direct, not linear"),
        ("resnet20", {"cell": "certified"}, "kind resnet20 has cell constant, not certified"),
        ("resnet20", {"head": "orthogonal"}, "kind resnet20 has head linear, not orthogonal"),
        ("mondeq", {"cell": "batchnorm"}, "kind mondeq has cell monotone, not batchnorm"),
        ("deq", {"cell": "constant"}, "kind deq has cell batchnorm or certified or monotone or interval, not constant"),
        ("lyadeq-anchord", {}, "unknown kind 'lyadeq-anchord': did you mean 'lyadeq-anchored'"),
    ],
)
def test_contradictions_are_refused(kind: str, architecture: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        configured(kind, **architecture)


def test_architecture_reaches_the_model() -> None:
    config = configured("deq", state_dim=17, solver=SolverConfig(name="broyden"), lyapunov=LyapunovConfig(eta=0.7))
    assert (config.state_dim, config.solver.name, config.lyapunov.eta) == (17, "broyden", 0.7)
    assert config.image_shape == SHAPE


def test_a_change_of_mode_before_the_backward_pass_is_refused() -> None:
    torch.manual_seed(0)
    config = model_config(
        "deq", ArchitectureConfig(state_dim=6), image_shape=(1, 4, 4), classes=3, mean=(0.5,), std=(0.3,)
    )
    model = StabilisedDEQ(config).train()
    loss = model(torch.rand(5, 1, 4, 4)).square().sum()
    model.eval()
    with pytest.raises(ConfigError, match="run it again"):
        loss.backward()


# Networks without an equilibrium


def plain_network(**solver: Any) -> StabilisedDEQ:
    torch.manual_seed(0)
    architecture = ArchitectureConfig(solver=SolverConfig(**solver))
    config = model_config("resnet20", architecture, image_shape=(1, 8, 8), classes=3, mean=(0.4,), std=(0.3,))
    return StabilisedDEQ(config)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("gradient", ["implicit", "unrolled"])
def test_a_network_without_an_equilibrium_is_its_layers_alone(gradient: str, training: bool) -> None:
    """Backbone and classifier, one after the other: the same logits and gradients to the last bit."""
    network, x = plain_network(gradient=gradient).train(training), images(shape=(1, 8, 8))
    found, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    prediction = network.predict(found)
    cross_entropy(prediction.logits, torch.arange(8) % 3).backward()
    gradients = {name: one.grad.clone() for name, one in network.named_parameters()}
    network.zero_grad()
    logits = network.head.classifier(network.backbone((expected - network.mean) / network.std))
    cross_entropy(logits, torch.arange(8) % 3).backward()
    assert torch.equal(prediction.logits, logits)
    assert torch.equal(found.grad, expected.grad)
    assert gradients
    assert all(torch.equal(gradients[name], one.grad) for name, one in network.named_parameters())
    solution = prediction.solution
    assert solution.converged.all()
    assert solution.residual.tolist() == [0] * 8
    assert solution.evaluations.tolist() == [1] * 8
    assert solution.adjoint == []


@pytest.mark.parametrize("solver", [Anderson(), Broyden(), Picard()], ids=["anderson", "broyden", "picard"])
def test_every_solver_finds_the_constant_of_a_constant_cell(solver: Solver) -> None:
    network = plain_network().eval()
    h = network.inject(images(shape=(1, 8, 8))).detach()
    before = h.clone()
    solution = solve(network.cell, torch.zeros_like(h), solver, tolerance=1e-6, max_evaluations=10, context=(h,))
    assert solution.evaluations.tolist() == [2] * 8
    own = network.solve(h)
    for name in ("z", "residual", "status"):
        torch.testing.assert_close(getattr(own, name), getattr(solution, name), rtol=0, atol=0)
    assert torch.equal(h, before)


def test_a_network_without_an_equilibrium_hides_no_nan() -> None:
    network, x = plain_network().eval(), images(shape=(1, 8, 8))
    x[3] = torch.nan
    solution = network.predict(x).solution
    assert (solution.status == Status.nan).tolist() == [i == 3 for i in range(8)]
    assert solution.residual.isinf().tolist() == [i == 3 for i in range(8)]


def test_a_network_without_an_equilibrium_takes_no_images_too() -> None:
    network = plain_network().eval()
    assert network(images(0, shape=(1, 8, 8))).shape == (0, 3)
    with torch.no_grad():
        assert not network.predict(images(shape=(1, 8, 8))).solution.z.requires_grad


# The folded cell, and other roads to the equilibrium and its gradient


def drawn_cell(dtype: torch.dtype) -> Cell:
    """In evaluation mode, with nothing at its initial value."""
    torch.manual_seed(0)
    cell = Cell(DIM).eval().to(dtype)
    with torch.no_grad():
        for tensor in (*cell.parameters(), *cell.buffers()):
            tensor.add_(0.3 * torch.randn(tensor.shape, generator=generator(len(tensor))).to(dtype))
        for norm in (cell.inner_norm, cell.outer_norm):
            norm.running_variance.abs_().add_(0.05)
    return cell


@pytest.mark.parametrize(("dtype", "roundoff"), [(torch.float32, 5e-6), (torch.float64, 1e-14)], ids=str)
def test_folded_cell_is_the_cell(dtype: torch.dtype, roundoff: float) -> None:
    cell = drawn_cell(dtype)
    before = {name: value.clone() for name, value in cell.state_dict().items()}
    z, h = (3 * torch.randn(50, DIM, generator=generator(seed), dtype=dtype) for seed in (1, 2))
    inputs = z.clone(), h.clone()
    with torch.no_grad():
        folded = cell.fold()
        found, expected = folded(z, folded.inject(h)), cell(z, h)
    assert found.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=roundoff, atol=roundoff)
    assert torch.equal(z, inputs[0])
    assert torch.equal(h, inputs[1])
    for name, value in cell.state_dict().items():
        assert torch.equal(value, before[name]), name
    # Nor does it share their memory: a step of training must not reach into a solve, nor the reverse.
    theirs = {value.untyped_storage().data_ptr() for value in cell.state_dict().values()}
    assert not any(getattr(folded, name).untyped_storage().data_ptr() in theirs for name in folded.__dataclass_fields__)


def test_evaluation_mode_solves_the_plain_cell() -> None:
    """What the folded cell finds is the plain cell's equilibrium, with its residual; and it is folded anew each time."""
    network = trained_statistics(model(solver=TIGHT).double())
    for seed in (3, 4):
        with torch.no_grad():
            h = network.inject(images(seed=seed).double())
            found = network.solve(h)
            expected = solve(
                lambda z, h=h: network.cell(z, h),
                torch.zeros_like(h),
                Anderson(),
                tolerance=1e-11,
                max_evaluations=400,
            )
            assert found.converged.all()
            torch.testing.assert_close(found.z, expected.z, rtol=0, atol=1e-9)
            assert (found.evaluations - expected.evaluations).abs().max() <= 1
            assert (relative_residual(found.z, network.cell(found.z, h)) <= 2e-11).all()
            network.cell.outer.weight.mul_(0.9)


def test_input_gradients_in_evaluation_mode_are_those_of_the_plain_cell() -> None:
    network = trained_statistics(model("lyadeq-anchored", solver=TIGHT).double())
    x = images(4).double().requires_grad_()
    (found,) = torch.autograd.grad(network(x).square().sum(), x)
    direction = torch.randn(x.shape, generator=generator(5), dtype=torch.float64)
    with torch.no_grad():
        above, below = (network(x + sign * 1e-6 * direction).square().sum() for sign in (1, -1))
    torch.testing.assert_close((found * direction).sum(), (above - below) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", ["deq", "lyadeq-anchored"])
@pytest.mark.parametrize("training", [False, True])
def test_hessian_vector_products_by_the_image(kind: str, training: bool) -> None:
    """By the differences of the gradient; in training mode through the whole batch's statistics too."""
    settings = SolverConfig(tolerance=1e-13, max_evaluations=400)
    network = trained_statistics(model(kind, solver=settings).double()).train(training)
    x, labels = images(4).double(), torch.arange(4) % 3
    direction = torch.randn(x.shape, generator=generator(5), dtype=torch.float64)

    def slope(x: Tensor, *, create_graph: bool = False) -> Tensor:
        x = x if x.requires_grad else x.requires_grad_()
        return torch.autograd.grad(cross_entropy(network(x), labels), x, create_graph=create_graph)[0]

    leaf = x.clone().requires_grad_()
    (found,) = torch.autograd.grad(slope(leaf, create_graph=True), leaf, direction)
    step = 1e-5
    expected = (slope(x + step * direction) - slope(x - step * direction)) / (2 * step)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("training", [False, True])
def test_unrolled_gradient_in_a_model(training: bool) -> None:
    """Of a few steps at the equilibrium; of many, the implicit one."""
    x, labels = images().double(), torch.arange(8) % 3
    gradients = {}
    for gradient, steps in (("implicit", 1), ("unrolled", 1), ("unrolled", 200)):
        solver = replace(TIGHT, gradient=gradient, gradient_steps=steps)
        network = trained_statistics(model(solver=TIGHT).double()).train(training)
        network.config = replace(network.config, solver=solver)
        prediction = network.predict(x)
        cross_entropy(prediction.logits, labels).backward()
        assert len(prediction.solution.adjoint) == (gradient == "implicit")
        gradients[gradient, steps] = {name: one.grad for name, one in network.named_parameters()}
    for name, exact in gradients["implicit", 1].items():
        torch.testing.assert_close(gradients["unrolled", 200][name], exact, rtol=1e-6, atol=1e-9)
    shortened = gradients["unrolled", 1]["cell.inner.weight"]
    assert not torch.allclose(shortened, gradients["implicit", 1]["cell.inner.weight"], rtol=1e-3, atol=0)


@pytest.mark.parametrize("training", [False, True])
def test_residual_is_that_of_the_state_with_an_unrolled_gradient(training: bool) -> None:
    """The Solution's word: ``residual`` is the residual of the very state in ``z``, whatever the gradient."""
    loose = SolverConfig(tolerance=1e-2, gradient="unrolled", gradient_steps=5)
    network = trained_statistics(model(solver=loose).double()).train(training)
    h = network.inject(images().double()).detach()
    solution = network.solve(h)
    true = relative_residual(solution.z.detach(), network.cell(solution.z, h).detach())
    torch.testing.assert_close(solution.residual, true, rtol=1e-6, atol=1e-12)


def test_predictions_do_not_depend_on_whether_gradients_are_recorded() -> None:
    for gradient in ("implicit", "unrolled"):
        loose = SolverConfig(tolerance=1e-2, gradient=gradient)
        network = trained_statistics(model(solver=loose).double())
        with torch.no_grad():
            expected = network(images().double())
        torch.testing.assert_close(network(images().double()), expected, rtol=0, atol=1e-12, msg=gradient)


def test_compiled_model() -> None:
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        pytest.skip("no C++ compiler")
    network = trained_statistics(model(solver=TIGHT).double())
    x = images().double().requires_grad_()
    plain = network(x)
    (expected,) = torch.autograd.grad(plain.square().sum(), x)
    network.config = replace(network.config, solver=replace(TIGHT, name="picard", compiled=True))
    logits = network(x)
    torch.testing.assert_close(logits, plain, rtol=0, atol=1e-9)
    (found,) = torch.autograd.grad(logits.square().sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    # Weights that change are seen: they are no constants of the compiled code.
    with torch.no_grad():
        network.cell.outer.weight.mul_(0.5)
        again = network(x)
        network.config = replace(network.config, solver=TIGHT)
        torch.testing.assert_close(again, network(x), rtol=0, atol=1e-9)
    assert not torch.allclose(again, logits, rtol=0, atol=1e-6)
