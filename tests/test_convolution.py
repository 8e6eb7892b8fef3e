"""Convolutional cells and V of states on places: the dense maps that they are, what holds for all weights, and what is refused."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_models import generator
from torch import Tensor, nn

from analysis.audit import audit
from analysis.checks import separation
from analysis.measure.arnoldi import outer_spectrum
from analysis.measure.subject import prepare
from analysis.proofs.cells.network import forms_of
from analysis.proofs.structure import is_structured
from stabdeq.adapters import from_functions
from stabdeq.backbones import build_backbone, places_of
from stabdeq.cells import BatchConvolutionCell, Cell, ConvolutionCell, build_cell, is_as_made
from stabdeq.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from stabdeq.config import AndersonConfig, DataConfig, LyapunovConfig, ModelConfig, StabilityName
from stabdeq.errors import CheckpointError, ConfigError
from stabdeq.linear_algebra import eigenvalues, spectral_norm
from stabdeq.lyapunov import ConvolutionalNetwork, InputConvexLyapunov, SeparableLyapunov, build_lyapunov, claims
from stabdeq.lyapunov.convolutional import kernel_norm
from stabdeq.lyapunov.input_convex import smooth_relu
from stabdeq.model import StabilisedDEQ
from stabdeq.solvers import Anderson, solve

SHAPE = (2, 3, 4)
N = 24
PLACES = SHAPE[1:]


def drawn(module: nn.Module, seed: int = 0, spread: float = 1.0) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(spread * torch.randn(parameter.shape, generator=generator(seed)))
    return module.double().requires_grad_(False)


def states(count: int = 5, seed: int = 1, n: int = N) -> Tensor:
    return torch.randn(count, n, generator=generator(seed), dtype=torch.float64)


def matrix_of(convolution: nn.Conv2d) -> tuple[Tensor, Tensor]:
    """The convolution on (C, 3, 4) as a matrix (n, n) and a bias (n,)."""
    inputs = torch.eye(N, dtype=torch.float64).view(N, *SHAPE)
    bias = convolution(torch.zeros(1, *SHAPE, dtype=torch.float64)).flatten()
    return (convolution(inputs).flatten(1) - bias).T, bias


def contracting_cell() -> BatchConvolutionCell:
    """In evaluation mode, with statistics other than at the start."""
    cell = drawn(BatchConvolutionCell(N, PLACES), spread=0.2).eval()
    assert isinstance(cell, BatchConvolutionCell)
    for norm in (cell.inner_norm, cell.outer_norm):
        assert isinstance(norm, nn.Module)
        norm.get_buffer("running_mean").copy_(torch.tensor([0.1, -0.2]))
        norm.get_buffer("running_variance").copy_(torch.tensor([0.5, 2.0]))
    return cell


def as_dense(cell: BatchConvolutionCell) -> Cell:
    """The paper's cell with the same map: the matrices of the convolutions, the norm of a channel at each of its places."""
    dense = Cell(N).double().requires_grad_(False).eval()
    for ours, theirs in ((cell.inner, dense.inner), (cell.outer, dense.outer)):
        for tensor, value in zip((theirs.weight, theirs.bias), matrix_of(ours), strict=True):
            tensor.copy_(value)
    each = PLACES[0] * PLACES[1]
    for norm, other in ((cell.inner_norm, dense.inner_norm), (cell.outer_norm, dense.outer_norm)):
        for name, tensor in other.state_dict().items():
            tensor.copy_(norm.state_dict()[name].repeat_interleave(each))
    return dense


# The cell


def test_in_evaluation_mode_it_is_the_papers_cell_with_the_matrices_of_its_convolutions() -> None:
    cell, h = contracting_cell(), states(seed=2)
    dense = as_dense(cell)
    torch.testing.assert_close(cell(states(), h), dense(states(), h))
    found = [
        solve(lambda z, f=f: f(z, h), torch.zeros_like(h), Anderson(), tolerance=1e-12, max_evaluations=200)
        for f in (cell, dense)
    ]
    assert bool(found[0].converged.all())
    torch.testing.assert_close(found[0].z, found[1].z)
    value, gradient = drawn_lyapunov("separable")(states())
    margins = [
        claims.decay(gradient, f(found[0].z + states(), h) - found[0].z - states(), value, 0.1).relative
        for f in (cell, dense)
    ]
    torch.testing.assert_close(margins[0], margins[1])


def test_arnoldi_finds_the_spectrum_of_its_matrix() -> None:
    cell = contracting_cell()
    dense = as_dense(cell)
    model = from_functions(lambda x: x.flatten(1).double(), cell, lambda z: z[:, :2])
    subject = prepare(model, torch.rand(1, *SHAPE, generator=generator()).double(), torch.zeros(1).long())
    h, z = subject.h[0], subject.equilibria[0]
    jacobian = torch.func.jacrev(lambda z: dense(z[None], h[None])[0])(z)
    found, expected = outer_spectrum(subject, 0), eigenvalues(jacobian)
    assert found.radius == pytest.approx(float(expected.abs().max()), abs=1e-9)
    assert found.abscissa == pytest.approx(float(expected.real.max()) - 1, abs=1e-9)


def test_group_norm_treats_samples_alone_and_batch_norm_couples_them_until_told() -> None:
    z, h = states(seed=3), states(seed=4)
    alone = drawn(ConvolutionCell(N, PLACES), spread=0.3).train()
    torch.testing.assert_close(alone(z, h)[:1], alone(z[:1], h[:1]))
    coupled = drawn(BatchConvolutionCell(N, PLACES), spread=0.3).train()
    assert isinstance(coupled, BatchConvolutionCell)
    assert not torch.allclose(coupled(z, h)[:1], coupled(z[:1], h[:1]))
    parted = coupled.decoupled(z, h)
    torch.testing.assert_close(parted(z, h), coupled(z, h))
    torch.testing.assert_close(parted(z[:1], h[:1]), coupled(z, h)[:1])


@pytest.mark.parametrize("kind", [ConvolutionCell, BatchConvolutionCell])
def test_the_products_of_its_jacobian_are_those_of_autograd(kind: type[ConvolutionCell]) -> None:
    cell, z, h, u = drawn(kind(8 * 12, PLACES), spread=0.3).eval(), *(states(seed=seed, n=96) for seed in (3, 4, 5))
    assert isinstance(cell, ConvolutionCell)
    folded = cell.fold()
    torch.testing.assert_close(folded(z, folded.inject(h)), cell(z, h))
    pull_back, rows = folded.linearise(z, folded.inject(h))
    expected = torch.func.vjp(lambda z: cell(z, h), z)[1](u)[0]
    torch.testing.assert_close(pull_back(u, *rows), expected)
    some = torch.tensor([1, 3])
    torch.testing.assert_close(pull_back(u[some], *(row[some] for row in rows)), expected[some])


def test_its_running_statistics_are_those_of_a_channel_over_samples_and_places() -> None:
    cell, z, h = drawn(BatchConvolutionCell(N, PLACES), spread=0.3).train(), states(seed=3), states(seed=4)
    assert isinstance(cell, BatchConvolutionCell)
    cell.at_equilibrium(z, h)
    active = cell.inner(z.view(-1, *SHAPE)).relu()
    norm = nn.BatchNorm2d(2).double()
    norm(active)
    torch.testing.assert_close(cell.inner_norm.get_buffer("running_mean"), norm.get_buffer("running_mean"))
    torch.testing.assert_close(cell.inner_norm.get_buffer("running_variance"), norm.get_buffer("running_var"))


def test_it_is_as_made_until_it_is_altered_and_certify_does_not_read_it() -> None:
    cell = ConvolutionCell(N, PLACES)
    assert is_as_made(cell)
    with pytest.raises(ConfigError, match="certify does not read convolutional cells"):
        forms_of(cell)
    cell.inner = nn.Conv2d(2, 2, 5, padding=2)
    assert not is_as_made(cell)


# V


def drawn_lyapunov(network: str, seed: int = 0, spread: float = 1.0, **config: float) -> InputConvexLyapunov:
    settings = LyapunovConfig(network=network, hidden=3, **config)  # pyrefly: ignore
    function = drawn(build_lyapunov(settings, "equilibrium", N, SHAPE), seed, spread)
    assert isinstance(function, InputConvexLyapunov)
    return function


functions = st.builds(
    drawn_lyapunov,
    st.sampled_from(["convolutional", "separable"]),
    st.integers(0, 2**16),
    spread=st.sampled_from([0.1, 1.0, 5.0]),
    smoothing=st.sampled_from([0.01, 1.0]),
    eta=st.sampled_from([1e-4, 0.1]),
)
sizes = st.sampled_from([1e-8, 1e-3, 1.0, 100.0])


@given(functions, sizes, st.integers(0, 2**16))
def test_for_all_weights_v_is_convex_and_grows_and_vanishes_at_its_centre(
    function: InputConvexLyapunov, size: float, seed: int
) -> None:
    a, b = size * states(seed=seed), size * states(seed=seed + 1)
    middle, at_a, at_b = (function(z)[0] for z in ((a + b) / 2, a, b))
    allowed = claims.tolerance(torch.float64, N)
    assert (claims.convex(middle, at_a, at_b).relative <= allowed).all()
    assert (claims.positive(at_a, function.eta * a.square().sum(1)).relative <= allowed).all()
    assert (at_a <= function.growth_bound() * a.square().sum(1) * (1 + 1e-12)).all()
    zero = torch.zeros_like(a)
    assert not bool(function(zero)[0].any())
    torch.testing.assert_close(function(zero)[1], zero, rtol=0, atol=0)


@given(functions, sizes, st.integers(0, 2**16))
def test_its_gradient_is_that_of_its_value_and_within_its_bounds(
    function: InputConvexLyapunov, size: float, seed: int
) -> None:
    leaf = (size * states(seed=seed)).requires_grad_()
    value, gradient = function(leaf)
    (automatic,) = torch.autograd.grad(value.sum(), leaf)
    torch.testing.assert_close(gradient.detach(), automatic, rtol=1e-9, atol=1e-12 * float(automatic.abs().max()))
    other = leaf.detach() + size * states(seed=seed + 1)
    learned = [function(z)[1] - 2 * function.eta * z for z in (leaf.detach(), other)]
    apart = (leaf.detach() - other).norm(dim=1)
    allowed = float(function.curvature_bound()) * apart + 1e-12 * learned[0].norm(dim=1)
    assert ((learned[0] - learned[1]).norm(dim=1) <= allowed * (1 + 1e-9)).all()


def test_the_convolutional_network_against_its_definition() -> None:
    network = drawn(ConvolutionalNetwork(SHAPE, 3, 0.5))
    assert isinstance(network, ConvolutionalNetwork)

    def g(z: Tensor) -> Tensor:
        first = smooth_relu(network.inner(z), 0.5)
        second = nn.functional.conv2d(first, network.middle, padding=1) + network.skip(z)
        return torch.einsum("bkhw,k->b", smooth_relu(second, 0.5), network.outer)

    z = states().view(-1, *SHAPE)
    torch.testing.assert_close(network(states())[0], g(z) - g(torch.zeros_like(z)))


def test_the_separable_v_is_the_dense_one_of_each_place_summed() -> None:
    function = drawn_lyapunov("separable")
    dense = InputConvexLyapunov(SHAPE[0], LyapunovConfig(hidden=3), "equilibrium").double()
    dense.load_state_dict(function.state_dict())
    value, gradient = function(states())
    places = states().view(-1, *SHAPE)
    each = [dense(places[:, :, row, column]) for row in range(PLACES[0]) for column in range(PLACES[1])]
    torch.testing.assert_close(value, sum(part for part, _ in each))
    torch.testing.assert_close(gradient.view(-1, *SHAPE)[:, :, 2, 1], each[2 * PLACES[1] + 1][1])


def test_the_norm_of_a_kernel_bounds_that_of_its_matrix() -> None:
    convolution = drawn(nn.Conv2d(2, 2, 3, padding=1))
    assert isinstance(convolution, nn.Conv2d)
    true = float(spectral_norm(matrix_of(convolution)[0]))
    assert true <= float(kernel_norm(convolution.weight)) <= 3 * true


@pytest.mark.parametrize("network", ["convolutional", "separable"])
def test_what_is_proved_of_v_by_its_make_is_proved_of_no_other(network: str) -> None:
    function = drawn_lyapunov(network)
    assert is_structured(function)
    function.network.inner.register_forward_hook(lambda layer, given, output: -output)
    assert not is_structured(function)
    wider = drawn_lyapunov(network)
    wider.network.skip = nn.Conv2d(2, 3, 5, padding=2).double() if network == "convolutional" else nn.Linear(3, 1)
    assert not is_structured(wider)
    negative = drawn_lyapunov(network)
    negative.eta = -1.0
    assert not is_structured(negative)


# The model


def settings(stability: StabilityName = "anchored", **changes: object) -> ModelConfig:
    config = ModelConfig(
        image_shape=(1, 6, 6),
        classes=3,
        mean=(0.5,),
        std=(0.3,),
        backbone="conv",
        cell="convolution",
        state_dim=144,
        stability=stability,
        head="orthogonal",
        solver=AndersonConfig(tolerance=1e-6),
        lyapunov=LyapunovConfig(hidden=3, network="convolutional", alpha=0.1),
    )
    return replace(config, **changes)  # pyrefly: ignore


@pytest.mark.parametrize("cell", ["convolution", "convolution-batchnorm"])
def test_the_gradient_of_a_model_is_that_of_differences(cell: str) -> None:
    torch.manual_seed(0)
    model = StabilisedDEQ(settings(cell=cell, solver=AndersonConfig(tolerance=1e-12, max_evaluations=300))).double()
    model.eval()
    images = torch.rand(3, 1, 6, 6, generator=generator(), dtype=torch.float64)
    weight = model.cell.get_parameter("inner.weight")
    (gradient,) = torch.autograd.grad(model(images).square().sum(), weight)
    direction = torch.randn(weight.shape, generator=generator(1), dtype=torch.float64)
    changed = []
    with torch.no_grad():
        for step in (1e-5, -1e-5):
            weight += step * direction
            changed.append(model(images).square().sum())
            weight -= step * direction
    difference = (changed[0] - changed[1]) / 2e-5
    assert float((gradient * direction).sum()) == pytest.approx(float(difference), rel=1e-5)


def checkpoint_of(model: StabilisedDEQ) -> Checkpoint:
    return Checkpoint(model=model, data=DataConfig(), class_names=("a", "b", "c"), seed=0, epoch=0)


@pytest.mark.parametrize("network", ["convolutional", "separable", "dense"])
def test_a_checkpoint_gives_the_model_back(network: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = StabilisedDEQ(settings(lyapunov=LyapunovConfig(hidden=3, network=network))).eval()  # pyrefly: ignore
    save_checkpoint(tmp_path / "model.safetensors", checkpoint_of(model))
    again = load_checkpoint(tmp_path / "model.safetensors").model
    images = torch.rand(4, 1, 6, 6, generator=generator())
    assert torch.equal(again(images), model(images))
    assert again.lyapunov is not None
    assert is_structured(again.lyapunov.double())
    assert type(again.lyapunov) is (SeparableLyapunov if network == "separable" else InputConvexLyapunov)
    assert asdict(again.config) == asdict(model.config)


def test_a_file_may_ask_for_no_larger_state_unless_it_is_trusted(tmp_path: Path) -> None:
    config = settings("none", image_shape=(1, 400, 400), state_dim=160_000, head="linear")
    save_checkpoint(tmp_path / "large.safetensors", checkpoint_of(StabilisedDEQ(config).eval()))
    assert (tmp_path / "large.safetensors").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match=r"asks for model.state_dim = 160000, and a file may ask for 65536"):
        load_checkpoint(tmp_path / "large.safetensors")
    assert load_checkpoint(tmp_path / "large.safetensors", trusted=True).model.config.state_dim == 160_000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"backbone": "fcn"},
            "cell convolution needs features that keep their places: set model.backbone to one of conv",
        ),
        ({"state_dim": 100}, "model.state_dim = 100 on 6 x 6 places: expected a multiple of 36, such as 576"),
        ({"state_dim": 10}, "expected a multiple of 36"),
        ({"cell": "batchnorm"}, "model.lyapunov.network = convolutional reads states on places"),
        ({"cell": "batchnorm", "state_dim": 72_000, "backbone": "fcn"}, "cell batchnorm takes up to 65536"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StabilisedDEQ(settings(**changes))


@pytest.mark.parametrize(
    ("name", "shape", "places"),
    [("conv", (1, 9, 7), (9, 7)), ("conv-half", (3, 9, 7), (5, 4)), ("resnet20-spatial", (3, 9, 8), (3, 2))],
)
def test_a_backbone_whose_features_keep_their_places(
    name: str, shape: tuple[int, int, int], places: tuple[int, int]
) -> None:
    assert places_of(name, shape) == places
    assert places_of("fcn", shape) is None
    network = build_backbone(name, shape, 5 * places[0] * places[1]).eval()
    image = torch.rand(2, *shape, generator=generator())
    assert network(image).shape == (2, 5 * places[0] * places[1])
    # A pixel in the corner reaches the place there, and of the plain convolutions none that is far away.
    image[1] = image[0]
    image[1, :, 0, 0] += 1
    changed = (network(image)[1] - network(image)[0]).view(5, *places).abs().sum(0)
    assert float(changed[0, 0].detach()) > 0
    if name != "resnet20-spatial":
        assert float(changed[-1, -1].detach()) == 0


def test_the_head_reads_means_over_quarters_of_the_places() -> None:
    model = StabilisedDEQ(settings())
    z = torch.arange(144.0).view(1, 144)
    pooled = model.head.pool(z)
    assert pooled.shape == (1, 16)
    assert float(pooled[0, 0]) == float(z.view(4, 6, 6)[0, :3, :3].mean())
    assert model.head.rotation is not None
    assert model.head.rotation.weight.shape == (16, 16)
    assert build_cell("convolution", 144, (6, 6)).shape == (4, 6, 6)  # pyrefly: ignore


def test_an_audit_says_that_the_layer_keeps_distances_between_what_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separation, "embedding", lambda subject: {})
    images = torch.rand(2, 1, 6, 6, generator=generator(), dtype=torch.float64)
    report = audit(StabilisedDEQ(settings()).eval(), images, torch.tensor([0, 1]), checks=["separation"])
    finding = report.named["separation.isometry"]
    assert finding.verdict == "PROVED"
    assert "between pooled equilibria" in finding.claim
