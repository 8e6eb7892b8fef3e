"""Solvers, cells, backbones, attacks and data sets by name: ours, a user's own, and those of installed packages.

Reading this file imports none of them: a row of ours says where its maker is found, "module:name". A package makes one of its
own known by an entry point, and a program by registering it::

    [project.entry-points."stabdeq.backbone"]
    mine = "my_package.networks:MINE"
"""

import os
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from stabdeq.errors import ConfigError, closest

if TYPE_CHECKING:
    from stabdeq.attacks import BuildAttack
    from stabdeq.backbones import Backbone
    from stabdeq.cells import EquilibriumCell
    from stabdeq.data import ReadData
    from stabdeq.solvers import Solver


def located(location: str) -> Any:
    """Return the object at "module:name".

    >>> located("math:pi")
    3.141592653589793
    """
    module, _, name = location.partition(":")
    return getattr(import_module(module), name)


class Registry:
    """Makers of one ``sort`` of thing by name: those in ``own``, by location, and those that are registered.

    An installed package registers one by an entry point in the group "stabdeq.SORT", such as "stabdeq.backbone" or
    "stabdeq.data_set". A name is looked up among ours first, then among those registered, then among the packages'.
    """

    def __init__(self, sort: str, own: dict[str, str]) -> None:
        self.sort = sort
        self._own = own
        self._registered: dict[str, Any] = {}

    def register(self, name: str, maker: Any) -> None:
        """Make ``maker`` known as ``name``; raise ConfigError where the name is taken by another."""
        if name in self._own or self._registered.get(name, maker) is not maker:
            raise ConfigError(f"the {self.sort} {name!r} exists already: choose another name")
        self._registered[name] = maker

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._registered or name in self._of_packages()

    def __iter__(self) -> Iterator[str]:
        """Yield all names, ours first."""
        return iter(dict.fromkeys([*self._own, *self._registered, *self._of_packages()]))

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __getitem__(self, name: str) -> Any:
        """Return the maker; raise ConfigError where there is none, with the nearest name, or where its package fails."""
        if name in self._own:
            return located(self._own[name])
        if name in self._registered:
            return self._registered[name]
        installed = self._of_packages()
        if name in installed:
            return self._load(installed[name])
        raise ConfigError(f"unknown {self.sort} {name!r}: {closest(name, self)}")

    def require(self, name: object) -> str:
        """Return ``name`` where it is known; raise ValueError with the nearest one, as pydantic asks of a validator."""
        if not isinstance(name, str) or name not in self:
            raise ValueError(closest(str(name), self))
        return name

    def own_names(self) -> list[str]:
        """Return the names of ours alone, in order."""
        return list(self._own)

    def own_makers(self) -> list[Any]:
        """Return the makers of ours alone, in order."""
        return [located(location) for location in self._own.values()]

    def _of_packages(self) -> dict[str, Any]:
        return _entry_points(f"stabdeq.{self.sort.replace(' ', '_')}", tuple((one, _changed(one)) for one in sys.path))

    def _load(self, point: Any) -> Any:
        try:
            return point.load()
        except Exception as error:  # another's code may raise anything
            package = point.dist.name if point.dist else "its package"
            raise ConfigError(
                f"the {self.sort} {point.name!r} could not be imported from {point.value} ({type(error).__name__}: {error}): "
                f"mend or remove {package}"
            ) from error


@lru_cache(maxsize=32)
def _entry_points(group: str, _path: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """Return the entry points of the packages on the path by name; where a package comes or goes, its folder changes."""
    from importlib.metadata import entry_points  # not before it is needed: it takes as long as all else here

    return {point.name: point for point in entry_points(group=group)}


def _changed(folder: str) -> int:
    """Return when ``folder`` changed, in nanoseconds, or 0 where it is not there."""
    try:
        return os.stat(folder or os.curdir).st_mtime_ns
    except OSError:
        return 0


BACKBONES = Registry(  # of stabdeq.backbones.Backbone
    "backbone",
    {
        "fcn": "stabdeq.backbones.fully_connected:FCN",
        "cnn": "stabdeq.backbones.small_convolutional:CNN",
        "conv": "stabdeq.backbones.places:CONV",
        "conv-half": "stabdeq.backbones.places:CONV_HALF",
        "resnet20-spatial": "stabdeq.backbones.places:RESNET20_SPATIAL",
        "lipschitz-fcn": "stabdeq.backbones.lipschitz.networks:FCN",
        "lipschitz-fcn-8": "stabdeq.backbones.lipschitz.networks:FCN_8",
        "lipschitz-cnn": "stabdeq.backbones.lipschitz.networks:CNN",
        "resnet20": "stabdeq.backbones.resnet:RESNET20",
        "resnet56": "stabdeq.backbones.resnet:RESNET56",
        "vgg16": "stabdeq.backbones.vgg:VGG",
        "wrn-28-10": "stabdeq.backbones.wide_resnet:WRN_28_10",
    },
)
CELLS = Registry(  # state_dim -> stabdeq.cells.EquilibriumCell; where it ``reads_places``, state_dim, (H, W) -> it
    "cell",
    {
        "batchnorm": "stabdeq.cells.batchnorm:Cell",
        "certified": "stabdeq.cells.certified:CertifiedCell",
        "monotone": "stabdeq.cells.monotone:MonotoneCell",
        "interval": "stabdeq.cells.interval:IntervalCell",
        "convolution": "stabdeq.cells.convolution:ConvolutionCell",
        "convolution-batchnorm": "stabdeq.cells.convolution:BatchConvolutionCell",
        "multiscale": "stabdeq.cells.multiscale:MultiscaleCell",
        "constant": "stabdeq.cells.constant:ConstantCell",
    },
)
ATTACKS = Registry(  # stabdeq.attacks.BuildAttack
    "attack",
    {
        "ifgsm": "stabdeq.attacks.ifgsm:build",
        "intermediate": "stabdeq.attacks.intermediate:build",
        "pgd": "stabdeq.attacks.pgd:build",
        "apgd-ce": "stabdeq.attacks.apgd:build",
        "apgd-t": "stabdeq.attacks.apgd:build_targeted",
        "square": "stabdeq.attacks.square:build",
        "honest": "stabdeq.attacks.honest:build",
    },
)
SOLVERS = Registry(  # settings -> stabdeq.solvers.Solver
    "solver",
    {
        "anderson": "stabdeq.solvers.anderson:Anderson",
        "broyden": "stabdeq.solvers.broyden:Broyden",
        "picard": "stabdeq.solvers.picard:Picard",
        "squarem": "stabdeq.solvers.squarem:Squarem",
    },
)
DATA_SETS = Registry(  # stabdeq.data.ReadData
    "data set",
    {
        "digits": "stabdeq.data.digits:read",
        "mnist": "stabdeq.data.mnist:MNIST",
        "svhn": "stabdeq.data.svhn:SVHN",
        "cifar10": "stabdeq.data.cifar:CIFAR10",
        "cifar100": "stabdeq.data.cifar:CIFAR100",
        "folder": "stabdeq.data.folder:read",
    },
)


def register_backbone(name: str, backbone: "Backbone") -> None:
    """Make ``backbone`` known as ``name``, for ``model.backbone`` of a recipe and for checkpoints that name it.

    Raises ConfigError where the name is taken by another.
    """
    BACKBONES.register(name, backbone)


def register_cell(name: str, make: "Callable[[int], EquilibriumCell]") -> None:
    """Make the cell that ``make(state_dim)`` returns known as ``name``, for ``model.cell`` of a recipe and for checkpoints.

    Where ``make.reads_places`` is true, as in a subclass of EquilibriumCell that says so, it is called with the places (H, W) too.
    Every kind whose own cell is the paper's takes it; what is proved of ours by their make is not proved of it. Raises ConfigError
    where the name is taken by another.
    """
    CELLS.register(name, make)


def register_solver(name: str, make: "Callable[..., Solver]") -> None:
    """Make the solver that ``make(**settings)`` returns known as ``name``, for ``model.solver.name`` of a recipe and checkpoints.

    Its keyword arguments are the settings that a recipe may give beside those that all solvers have: ``tolerance``,
    ``max_evaluations``, ``compiled``, ``returns``, ``gradient`` and ``gradient_steps``.

    Raises ConfigError where the name is taken by another.
    """
    SOLVERS.register(name, make)


def register_attack(name: str, build: "BuildAttack") -> None:
    """Make the attack that ``build(eps=..., norm=..., steps=..., restarts=...)`` returns known as ``name``, for ``build_attack``.

    Raises ConfigError where the name is taken by another.
    """
    ATTACKS.register(name, build)


def register_data_set(name: str, read: "ReadData") -> None:
    """Make the data set that ``read`` returns known as ``name``, for ``data.name`` of a recipe and for checkpoints that name it.

    ``read(data_dir, download)`` gets the folder that the user names, or None, and whether a missing set may be fetched. It returns
    the training part (validation not yet taken out) and the test part, each a ``Split``, and the names of the classes; the same
    at every call. It raises DataError where it cannot. Raises ConfigError where the name is taken by another.
    """
    DATA_SETS.register(name, read)
