"""The settings: of a model and its parts, and of the data."""

import reprlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError, PydanticKnownError

from stabdeq.config.by_name import REGISTERED, by_name, require_options, settings_of, variants, with_options
from stabdeq.errors import ConfigError, closest
from stabdeq.registry import BACKBONES, CELLS, DATA_SETS, SOLVERS

STRICT = ConfigDict(extra="forbid")

LARGEST = 1e9  # far beyond any use, and far within float32, which models are trained in
SMALLEST = 1 / LARGEST  # of what is not 0: far less, or its square, is 0 in float32


def _require(sort: Literal["int_type", "float_type"]) -> BeforeValidator:
    """Return what refuses truth values and texts, of which pydantic makes numbers; it takes any other number, NumPy's too."""

    def plain(value: Any) -> Any:
        if isinstance(value, bool | str):
            raise PydanticKnownError(sort)
        return value

    return BeforeValidator(plain)


def _far_from_zero(value: float) -> float:
    if 0 < value < SMALLEST:
        least = {"least": f"{SMALLEST:g}"}
        raise PydanticCustomError("near_zero", "input is too near to 0 for float32: give {least} or more", least)
    return value


Whole = Annotated[int, _require("int_type")]
Number = Annotated[float, _require("float_type"), Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0, le=LARGEST), AfterValidator(_far_from_zero)]
NonNegative = Annotated[Number, Field(ge=0, le=LARGEST), AfterValidator(_far_from_zero)]
Tolerance = Annotated[Number, Field(gt=0, le=LARGEST)]  # in float64 less is met; a solve judges it
Mean = Annotated[Number, Field(ge=-LARGEST, le=LARGEST)]
UpToOne = Annotated[Number, Field(ge=0, le=1)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Count = Annotated[Whole, Field(ge=1, lt=2**63)]
Width = Annotated[Whole, Field(ge=1, le=65536)]
StateDim = Annotated[Whole, Field(ge=1, le=2**24)]

BackboneName = Annotated[str, PlainValidator(BACKBONES.require)]
CellName = Annotated[str, PlainValidator(CELLS.require)]
GradientName = Literal["implicit", "unrolled"]
ReturnedName = Literal["state", "image"]
StabilityName = Literal["none", "anchored", "state", "residual"]
ConvexName = Literal["dense", "convolutional", "separable"]
HeadName = Literal["linear", "orthogonal", "orthogonal-direct"]
DataName = Annotated[str, PlainValidator(DATA_SETS.require)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SolveConfig:
    """How equilibria are found, by whatever solver, and differentiated: the paper's, with a tolerance it does not state.

    ``tolerance`` bounds the residual ``||f(z) - z|| / max(1, ||z||)``, None for the kind's own (``stopping_tolerance`` without
    a kind); ``max_evaluations`` counts calls of the cell.
    ``compiled`` runs the solver through torch.compile. ``returns`` is "state", or "image" for the cell's value at that state, which is
    nearer to the equilibrium where the cell contracts; the residual told is the state's. ``gradient`` is "implicit", or
    "unrolled" through ``gradient_steps`` more applications of the cell ("phantom" gradients, Geng et al. 2021; with one step,
    "Jacobian-free", Fung et al. 2022).
    """

    tolerance: Tolerance | None = None
    max_evaluations: Count = 50
    compiled: bool = False
    returns: ReturnedName = "state"
    gradient: GradientName = "implicit"
    gradient_steps: Count = 5

    @property
    def stopping_tolerance(self) -> float:
        """The tolerance that solves stop at: ``tolerance``, and 1e-3 where none is named."""
        return 1e-3 if self.tolerance is None else self.tolerance

    def of_the_solver(self) -> dict[str, Any]:
        """Return the settings that are the solver's own."""
        common = settings_of(SolveConfig)
        return {name: getattr(self, name) for name in settings_of(type(self)) if name not in common}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AndersonConfig(SolveConfig):
    """Anderson acceleration over ``window`` past steps, damped by ``mixing``: the paper's settings (Algorithm 1)."""

    name: Literal["anderson"] = "anderson"
    window: Count = 5
    mixing: Positive = 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BroydenConfig(SolveConfig):
    """Broyden's good method with ``memory`` rank-one updates; with ``line_search``, a step that fails is halved."""

    name: Literal["broyden"] = "broyden"
    memory: Count = 20
    line_search: bool = False


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PicardConfig(SolveConfig):
    """The plain iteration z + ``mixing`` (f(z) - z)."""

    name: Literal["picard"] = "picard"
    mixing: Positive = 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SquaremConfig(SolveConfig):
    """Two plain steps and a jump along their line; there is nothing to set."""

    name: Literal["squarem"] = "squarem"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RegisteredSolverConfig(SolveConfig):
    """A solver of a user's or a package's (``stabdeq.solvers.register_solver``).

    ``options`` are the keyword arguments of its maker; in a recipe they stand beside the other settings. Raises ConfigError
    where the maker has no such argument.
    """

    name: Annotated[str, PlainValidator(SOLVERS.require)]
    options: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _gather_options(cls, values: Any) -> Any:
        return with_options(cls, values)

    def __post_init__(self) -> None:
        require_options(SOLVERS, self.name, self.options)

    def of_the_solver(self) -> dict[str, Any]:
        """Return the keyword arguments of the maker."""
        return self.options


SolverConfig = Annotated[
    Annotated[AndersonConfig, Tag("anderson")]
    | Annotated[BroydenConfig, Tag("broyden")]
    | Annotated[PicardConfig, Tag("picard")]
    | Annotated[SquaremConfig, Tag("squarem")]
    | Annotated[RegisteredSolverConfig, Tag(REGISTERED)],
    by_name("anderson", ("anderson", "broyden", "picard", "squarem")),
]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LyapunovConfig:
    """The learned Lyapunov function: V(z) = s(g(z - c) - g(0)) + eta ||z - c||^2 (paper, Eqs. 9, 10 and 12).

    ``alpha`` is the decay rate of V-dot <= -alpha V, None for the kind's own, ``smoothing`` the width d of the smooth ReLU s,
    ``hidden`` the width of the input-convex network g. The paper states none but alpha's role. ``network`` says what g is: "dense", as
    in the paper; of states on places "convolutional", with ``hidden`` channels, or "separable", a V of the channels at a place
    that is summed over the places.
    """

    alpha: Positive | None = None
    eta: Positive = 0.1
    smoothing: Positive = 1.0
    hidden: Width = 64
    network: ConvexName = "dense"


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ArchitectureConfig:
    """What a recipe says of a model before its kind and data are known; None leaves the choice to the kind.

    A kind that is a network of its own, such as "resnet56", brings its backbone and its width in place of these, and has no
    equilibrium to solve for.
    """

    backbone: BackboneName = "fcn"
    cell: CellName | None = None
    state_dim: StateDim = 64
    stability: StabilityName | None = None
    head: HeadName | None = None
    solver: SolverConfig = Field(default_factory=AndersonConfig)
    lyapunov: LyapunovConfig = Field(default_factory=LyapunovConfig)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """All that is needed to build a model; ``mean`` and ``std`` are the training images' own, by channel, in [0, 1]."""

    image_shape: tuple[Width, Width, Width]
    classes: Annotated[Whole, Field(ge=2, le=65536)]
    mean: tuple[Mean, ...]
    std: tuple[Positive, ...]
    backbone: BackboneName = "fcn"
    cell: CellName = "batchnorm"
    state_dim: StateDim = 64
    stability: StabilityName = "none"
    head: HeadName = "linear"
    solver: SolverConfig = Field(default_factory=AndersonConfig)
    lyapunov: LyapunovConfig = Field(default_factory=LyapunovConfig)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """Which images to read; ``augment`` adds random crops (4 pixels) and horizontal flips in training.

    ``robust`` puts a robust data set (``stabdeq.data.robust``) in the place of the training images; the test images stay.
    ``resize`` scales each image of a folder to so many pixels in height and in width; with 0 they stay as they are.
    """

    name: DataName = "digits"
    robust: bool = False
    augment: bool = False
    resize: Annotated[Whole, Field(ge=0, le=65536)] = 0
    validation_fraction: Fraction = 0.05


Config = TypeVar("Config")


def parse_config(cls: type[Config], values: Mapping[str, Any], what: str) -> Config:
    """Build the configuration ``cls`` from plain values, as read from TOML or JSON.

    Raises ConfigError, naming the key and the closest valid one, where a key is unknown or a value does not fit.
    ``what`` names the source in that message.

    >>> parse_config(SolverConfig, {"tolerence": 1e-3}, "solver settings")
    Traceback (most recent call last):
    stabdeq.errors.ConfigError: solver settings: unknown key 'tolerence': did you mean 'tolerance'? ...
    """
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"{what}: {_explain(cls, first)}") from None


def _explain(cls: Any, error: Any) -> str:
    keys, owner, choice = _way(cls, error["loc"])
    dotted = ".".join(keys)
    if error["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        whose = [name for name, other in choice.items() if keys[-1] in settings_of(other)]
        if not whose:
            return f"unknown key {dotted!r}: {closest(keys[-1], _field_types(owner))}"
        name = next(name for name, one in choice.items() if one is owner)
        return (
            f"{dotted} = {reprlib.repr(error['input'])} means nothing to {name}, which has "
            f"{', '.join(settings_of(owner)) or 'no settings'}: it belongs to {', '.join(whose)}; leave it out, or choose another "
            f"{'.'.join([*keys[:-1], 'name'])}"
        )
    if error["type"] == "missing":
        return f"{dotted} is missing"
    if error["type"] == "literal_error":
        valid = error["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return f"{dotted} = {reprlib.repr(error['input'])} is unknown: {closest(str(error['input']), valid)}"
    if error["type"] == "value_error":  # of a name in a registry
        return f"{dotted} = {reprlib.repr(error['input'])} is unknown: {error['ctx']['error']}"
    return f"{dotted} = {reprlib.repr(error['input'])}: {error['msg'].lower()}"


def _way(cls: Any, location: tuple[Any, ...]) -> tuple[list[str], Any, dict[str, type]]:
    """Return the keys that lead to a fault, the settings that hold the last key, and those among which these were chosen by name."""
    keys: list[str] = []
    kind, owner, among, choice = cls, cls, {}, {}
    for part in location:
        if variants(kind):  # the part is no key, but the tag of the settings chosen
            among = variants(kind)
            kind = among[part]
        elif isinstance(part, str):
            keys.append(part)
            owner, choice, among = kind, among, {}
            kind = _field_types(kind).get(part)
    return keys, owner, choice


def _field_types(cls: Any) -> dict[str, Any]:
    return {field.name: field.type for field in fields(cls)} if is_dataclass(cls) else {}
