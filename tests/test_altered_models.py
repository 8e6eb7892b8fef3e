"""Models that compute something else than their weights say: no proof from the weights may hold of them."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from small_models import images, model, settings
from torch import Tensor, nn
from torch.nn.modules import module as every_module
from torch.nn.utils import parametrizations, parametrize, prune

from analysis.certify import certify
from analysis.proofs.cells import gain_descent, linf_gain, rate_descent
from analysis.proofs.cells.l2_radii import ends_of
from analysis.proofs.cells.linf_margins import linf_margins
from analysis.proofs.structure import is_structured
from stabdeq.alteration import alteration
from stabdeq.attacks import PGD
from stabdeq.bounds import logit_difference_bound, worst_logits
from stabdeq.bounds.lipschitz import extractor_matrix
from stabdeq.cells import Cell, is_as_made
from stabdeq.errors import ConfigError
from stabdeq.heads import Head
from stabdeq.lyapunov import InputConvexLyapunov
from stabdeq.model import StabilisedDEQ

OF_THE_CELL = {"contraction", "stability", "gain", "well_posed", "affine_ball"}
LABELS = torch.zeros(8, dtype=torch.int64)


class Lying(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return -3 * super().forward(input)


class LyingHead(Head):
    def forward(self, features: Tensor) -> Tensor:
        return -super().forward(features)


class Lies(nn.Parameter):
    """A weight that a layer reads as three times itself."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(function, types, args, kwargs or {})
        return -3 * result if function is nn.functional.linear else result


class Noise(nn.Module):
    """A weight that is another one each time it is read."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + torch.randn_like(weight)


def overridden(*methods: str) -> Callable[[StabilisedDEQ], None]:
    """Return what makes a model one of a subclass that overrides ``methods``."""

    def alter(network: StabilisedDEQ) -> None:
        def negated(name: str) -> Callable[..., Tensor]:
            return lambda self, value: -getattr(StabilisedDEQ, name)(self, value)

        network.__class__ = type("Mine", (StabilisedDEQ,), {name: negated(name) for name in methods})

    return alter


def negated(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *values: -function(*values)


def replaced(part: str, method: str) -> Callable[[StabilisedDEQ], None]:
    """Return what puts an attribute of its own in the place of a part's ``method``."""

    def alter(network: StabilisedDEQ) -> None:
        owner = network.get_submodule(part)
        setattr(owner, method, negated(getattr(owner, method)))

    return alter


def hooked(part: str) -> Callable[[StabilisedDEQ], None]:
    def alter(network: StabilisedDEQ) -> None:
        network.get_submodule(part).register_forward_hook(lambda part, given, output: -output)

    return alter


def hooked_before(part: str, with_kwargs: bool = False) -> Callable[[StabilisedDEQ], None]:
    def alter(network: StabilisedDEQ) -> None:
        owner = network.get_submodule(part)
        if with_kwargs:
            hook = lambda part, given, named: ((3 * given[0],), named)  # noqa: E731
            owner.register_forward_pre_hook(hook, with_kwargs=True)
        else:
            owner.register_forward_pre_hook(lambda part, given: (3 * given[0],))

    return alter


def lying(part: str) -> Callable[[StabilisedDEQ], None]:
    """Return what makes a linear layer one of a subclass."""

    def alter(network: StabilisedDEQ) -> None:
        network.get_submodule(part).__class__ = Lying

    return alter


def with_lies(part: str, name: str = "weight") -> Callable[[StabilisedDEQ], None]:
    def alter(network: StabilisedDEQ) -> None:
        owner = network.get_submodule(part)
        setattr(owner, name, Lies(getattr(owner, name).detach()))

    return alter


def noisy(part: str, name: str = "weight") -> Callable[[StabilisedDEQ], None]:
    def alter(network: StabilisedDEQ) -> None:
        parametrize.register_parametrization(network.get_submodule(part), name, Noise())

    return alter


def lying_head(network: StabilisedDEQ) -> None:
    network.head.__class__ = LyingHead


def hidden_layer(network: StabilisedDEQ) -> None:
    """Past what PyTorch registers."""
    object.__setattr__(network.head, "classifier", Lying(6, 3).double())


def pruned(network: StabilisedDEQ) -> None:
    prune.random_unstructured(network.head.classifier, "weight", 0.5)


def spectrally_normed(network: StabilisedDEQ) -> None:
    parametrizations.spectral_norm(network.head.classifier)


def normalised_otherwise(network: StabilisedDEQ) -> None:
    network.mean = torch.linspace(0, 1, 16).view(1, 1, 4, 4)


def without_bias(network: StabilisedDEQ) -> None:
    network.head.classifier = nn.Linear(6, 3, bias=False)


def with_relu(network: StabilisedDEQ) -> None:
    network.head.classifier = nn.Sequential(nn.Linear(6, 3), nn.ReLU())  # pyrefly: ignore


# What is altered: how, the model that it is done to, and what is said of it.
ENDS: dict[str, tuple[Callable[[StabilisedDEQ], None], str]] = {
    "a hook on the model": (hooked(""), "the model has a forward hook"),
    "a hook before the model": (hooked_before(""), "the model has a forward pre-hook"),
    "a hook on the head": (hooked("head"), "the head has a forward hook"),
    "a hook on the classifier": (hooked("head.classifier"), "the head's classifier has a forward hook"),
    "a hook before the classifier": (hooked_before("head.classifier"), "classifier has a forward pre-hook"),
    "a hook with keywords": (hooked_before("head.classifier", with_kwargs=True), "classifier has a forward pre-hook"),
    "a hook on the extractor": (hooked("backbone"), "the backbone has a forward hook"),
    "a hook on the extractor's first layer": (hooked("backbone.0"), "0 has a forward hook"),
    "a hook on the extractor's layer": (hooked("backbone.1"), "1 has a forward hook"),
    "a model's readout": (replaced("", "readout"), "the model has an attribute readout of its own"),
    "a model's inject": (replaced("", "inject"), "the model has an attribute inject of its own"),
    "a head's forward": (replaced("head", "forward"), "the head has an attribute forward of its own"),
    "a head's rotate": (replaced("head", "rotate"), "the head has an attribute rotate of its own"),
    "a classifier's forward": (replaced("head.classifier", "forward"), "attribute forward of its own"),
    "a subclass's readout": (overridden("readout"), "the model is a Mine, expected a StabilisedDEQ"),
    "a subclass's inject": (overridden("inject"), "the model is a Mine, expected a StabilisedDEQ"),
    "a head of a subclass": (lying_head, "the head is a LyingHead, whose forward"),
    "a classifier of a subclass": (lying("head.classifier"), "the head's classifier is a Lying, whose forward"),
    "a layer hidden in the head": (hidden_layer, "the head has an attribute classifier of its own"),
    "a classifier's parameter of a subclass": (with_lies("head.classifier"), "is a Lies, not a plain tensor"),
    "an extractor's parameter of a subclass": (with_lies("backbone.1"), "is a Lies, not a plain tensor"),
    "a noisy classifier": (noisy("head.classifier"), "weight is parametrized by Noise"),
    "a classifier of spectral norm 1": (spectrally_normed, "weight is parametrized by _SpectralNorm"),
    "a classifier pruned": (pruned, "the head's classifier has a forward pre-hook"),
    "pixels normalised one by one": (normalised_otherwise, "mean is of shape (1, 1, 4, 4)"),
    "a classifier without a bias": (without_bias, "classifier.bias is nothing, expected a Parameter"),
    "a classifier with a ReLU": (with_relu, "classifier is a Sequential, expected a Linear"),
}


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the searches for multipliers end early: what is proved of an altered model must not hang on how good they are."""
    for module, steps in ((gain_descent, "STEPS"), (rate_descent, "STEPS"), (linf_gain, "DESCENT_STEPS")):
        monkeypatch.setattr(module, steps, 5)


def certified(**changes: Any) -> StabilisedDEQ:
    """A model of which its weights prove a radius for images."""
    network = model(**{"cell": "certified"} | changes).double().eval()
    with torch.no_grad():
        network.head.classifier.bias[0] += 1
    return network


def proved(network: StabilisedDEQ) -> set[str]:
    try:
        report = certify(network, images(), LABELS)
    except ConfigError:
        return set()
    return {found.name for found in report.findings if found.verdict == "PROVED"}


@pytest.mark.usefixtures("few_steps")
def test_what_is_not_altered_is_proved() -> None:
    assert proved(certified()) == OF_THE_CELL | {"radius", "linf"}
    assert proved(certified(head="orthogonal")) == OF_THE_CELL | {"radius", "linf"}
    assert proved(certified(cell="interval")) == OF_THE_CELL | {"radius", "linf"}


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("name", ENDS)
def test_no_radius_is_certified_past_altered_ends(name: str) -> None:
    alter, said = ENDS[name]
    for cell in ("certified", "interval"):
        network = certified(cell=cell)
        alter(network)
        network.double()
        if name not in ("a classifier with a ReLU", "a classifier without a bias"):  # what computes as its weights say
            assert not torch.equal(network(images().double()), certified(cell=cell)(images().double()))
        found = {one.name: one for one in certify(network, images(), LABELS).findings}
        assert {one for one in OF_THE_CELL if found[one].verdict == "PROVED"} == OF_THE_CELL  # of the cell alone
        for claim in {"radius", "linf"} & found.keys():
            assert found[claim].verdict == "INCONCLUSIVE"
            assert said in found[claim].evidence
            assert "so that its weights do not tell what it computes" in found[claim].evidence


@pytest.mark.parametrize("name", ENDS)
def test_no_bound_is_read_off_altered_ends(name: str) -> None:
    alter, said = ENDS[name]
    networks = certified(), certified(cell="interval")
    for network in networks:
        alter(network)
        network.double()
    reads: list[Callable[[], Any]] = [
        lambda: logit_difference_bound(networks[0], LABELS),
        lambda: ends_of(networks[0]),
        lambda: worst_logits(networks[1], images().double(), LABELS, 0.01),
        lambda: linf_margins(networks[1], images().double(), LABELS, 0.01),
    ]
    for read in reads:
        with pytest.raises(ConfigError, match="do not tell what it computes") as raised:
            read()
        assert said in str(raised.value)


@pytest.mark.parametrize("alter", [hooked("backbone.1"), with_lies("backbone.1"), noisy("backbone.1")])
def test_an_altered_extractor_has_no_matrix(alter: Callable[[StabilisedDEQ], None]) -> None:
    network = certified()
    extractor_matrix(network)
    alter(network)
    with pytest.raises(ConfigError, match="the backbone's 1"):
        extractor_matrix(network)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    "alter", [hooked("head.rotation"), replaced("head.rotation", "forward"), noisy("head.rotation")]
)
def test_an_altered_rotation_has_no_radius(alter: Callable[[StabilisedDEQ], None]) -> None:
    network = certified(head="orthogonal")
    assert network.head.rotation is not None
    assert alteration(network.head.rotation, "the layer") is None
    alter(network)
    assert alteration(network.head.rotation, "the layer")
    assert proved(network) == OF_THE_CELL


@pytest.fixture
def global_hooks() -> Iterator[list[Any]]:
    handles: list[Any] = []
    yield handles
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("before", [True, False])
def test_a_hook_of_all_modules_proves_nothing(before: bool, global_hooks: list[Any]) -> None:
    network = certified()
    if before:
        global_hooks.append(every_module.register_module_forward_pre_hook(lambda part, given: None))
    else:
        global_hooks.append(every_module.register_module_forward_hook(lambda part, given, output: None))
    with pytest.raises(ConfigError, match="the cell, as every module, has a forward"):
        certify(network, images(), LABELS)
    assert not is_as_made(network.cell)


@pytest.mark.usefixtures("few_steps")
def test_a_hook_that_sees_modules_made_is_harmless(global_hooks: list[Any]) -> None:
    global_hooks.append(every_module.register_module_module_registration_hook(lambda *given: None))
    assert "radius" in proved(certified())


class Descriptor:
    def __get__(self, owner: Any, cls: Any) -> Callable[..., Tensor]:
        return lambda value: torch.zeros(len(value), 3, dtype=torch.float64)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    ("owner", "how"),
    [
        (StabilisedDEQ, "function"),
        (Head, "wrapper"),
        (Head, "descriptor"),
        (nn.Linear, "function"),
        (nn.Linear, "wrapper"),
    ],
)
def test_a_class_whose_method_was_replaced_proves_no_radius(
    owner: Any, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, forward = certified(), owner.forward
    function = lambda self, value: -forward(self, value)  # noqa: E731
    replacement = {"function": function, "wrapper": functools.wraps(forward)(function), "descriptor": Descriptor()}
    monkeypatch.setattr(owner, "forward", replacement[how])
    assert proved(network) == OF_THE_CELL


# The cell.

CELL: dict[str, Callable[[StabilisedDEQ], None]] = {
    "a hook on the inner layer": hooked("cell.inner"),
    "a hook before the outer layer": hooked_before("cell.outer"),
    "a hook on BatchNorm": hooked("cell.inner_norm"),
    "an inner layer's forward": replaced("cell.inner", "forward"),
    "a layer of a subclass": lying("cell.outer"),
    "a parameter of a subclass": with_lies("cell.inner"),
    "a noisy layer": noisy("cell.outer"),
}


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("name", CELL)
def test_nothing_is_proved_of_an_altered_cell(name: str) -> None:
    network = model().double().eval()
    with torch.no_grad():
        for weight in network.cell.parameters():
            weight *= 0.5
    assert proved(network) >= OF_THE_CELL
    CELL[name](network)
    assert not is_as_made(network.cell)
    with pytest.raises(ConfigError, match=r"the cell's .* do not tell what it computes"):
        certify(network, images(), LABELS)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("cell", ["certified", "monotone", "interval"])
@pytest.mark.parametrize("alter", [noisy, with_lies])
def test_nothing_is_proved_of_a_bias_that_is_not_what_it_seems(cell: str, alter: Any) -> None:
    network = certified(cell=cell)
    alter("cell", "bias")(network)
    assert not is_as_made(network.cell)
    assert proved(network) == set()


def test_a_part_in_another_place_is_no_part_as_made() -> None:
    cell = Cell(3)
    assert is_as_made(cell)
    cell.outer = cell.inner  # shared weights are weights
    assert is_as_made(cell)
    cell.inner_norm = nn.BatchNorm1d(3)  # pyrefly: ignore
    assert not is_as_made(cell)


def test_a_user_may_build_a_chain_of_layers_and_no_more() -> None:
    class Chain(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Flatten(), nn.Linear(16, 6))

    class Called(Chain):
        def __call__(self, *given: Any) -> Tensor:
            return -super().__call__(*given)

    network = certified(cell="interval")
    network.backbone = Chain().double()
    assert bool((linf_margins(network, images(), LABELS, 1e-6) > -torch.inf).all())
    network.backbone = Called().double()
    with pytest.raises(ConfigError, match="the backbone is a Called, whose __call__"):
        linf_margins(network, images(), LABELS, 1e-6)


# V.


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize(
    "alter",
    [
        noisy("lyapunov.network.skip"),
        with_lies("lyapunov.network", "raw_mix"),
        lying("lyapunov.network.inner"),
        replaced("lyapunov.network", "lipschitz_bound"),
    ],
)
def test_an_altered_energy_gives_no_gain(alter: Callable[[StabilisedDEQ], None]) -> None:
    network = certified(stability="anchored")
    assert is_structured(network.lyapunov)
    alter(network)
    assert not is_structured(network.lyapunov)
    found = {one.name: one for one in certify(network, images(), LABELS).findings}
    assert found["iss_gain"].verdict == "INCONCLUSIVE"
    assert found["radius"].verdict == "PROVED"  # the head reads the equilibrium, wherever V is


def test_an_energy_whose_class_was_altered_has_no_structure(monkeypatch: pytest.MonkeyPatch) -> None:
    energy = certified(stability="anchored").lyapunov
    monkeypatch.setattr(InputConvexLyapunov, "forward", lambda self, offset: (-offset.sum(1), -offset))
    assert not is_structured(energy)


# What is proved, no attack refutes.


@pytest.mark.parametrize("seed", range(4))
def test_no_attack_turns_a_certified_image(seed: int) -> None:
    """Of random weights, and of pixels that are normalised by any mean and std, such as a negative one."""
    network = StabilisedDEQ(settings(cell="certified", head="orthogonal" if seed % 2 else "linear"))
    generator = torch.Generator().manual_seed(seed)
    network = network.double().eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64))
        network.mean.fill_(float(seed) - 2)
        network.std.fill_((-0.4, 0.4, -3.0, 3.0)[seed])
    x = images(16, seed=seed).double()
    network.requires_grad_(False)
    radii = certify(network, x, network(x).argmax(1)).series["certify"]["radii"]
    radius, predicted = torch.tensor(radii["radius"]), torch.tensor(radii["predicted"])
    assert bool((radius >= 0).all())
    assert bool((radius > 0).any())
    for eps in radius[radius > 0].tolist()[:3]:
        attacked = PGD(eps=eps, norm="l2", steps=20)(network, x, predicted, generator=generator).images
        turned = network(attacked).argmax(1) != predicted
        assert not bool((turned & (radius >= (attacked - x).flatten(1).norm(dim=1))).any())
