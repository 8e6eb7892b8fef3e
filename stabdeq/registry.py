"""Solvers, cells, backbones, attacks and data sets by name: ours, a user's own, and those of installed packages.

Reading this file imports none of them: a row of ours says where its maker is found, "module:name".
"""

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from stabdeq.errors import ConfigError, closest


def located(location: str) -> Any:
    """Return the object at "module:name".

    >>> located("math:pi")
    3.141592653589793
    """
    module, _, name = location.partition(":")
    return getattr(import_module(module), name)


class Registry:
    """Makers of one ``sort`` of thing by name: those in ``own``, by location, and those that are registered.

    An installed package registers one by an entry point in the group "stabdeq.SORT", such as "stabdeq.backbone".
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

    def __getitem__(self, name: str) -> Any:
        """Return the maker; raise ConfigError, with the nearest name, where there is none."""
        if name in self._own:
            return located(self._own[name])
        if name in self._registered:
            return self._registered[name]
        installed = self._of_packages()
        if name in installed:
            return installed[name].load()
        raise ConfigError(f"unknown {self.sort} {name!r}: {closest(name, self)}")

    def require(self, name: str) -> str:
        """Return ``name`` where it is known; raise ValueError with the nearest one, as pydantic asks of a validator."""
        if name not in self:
            raise ValueError(closest(name, self))
        return name

    def _of_packages(self) -> dict[str, Any]:
        from importlib.metadata import entry_points  # not before it is needed: it takes as long as all else here

        return {point.name: point for point in entry_points(group=f"stabdeq.{self.sort}")}
