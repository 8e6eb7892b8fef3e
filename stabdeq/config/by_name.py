"""Settings whose key ``name`` decides which others there are: those of another name are an error, never dropped."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, get_args, get_origin

from pydantic import Discriminator, Tag
from pydantic_core import ArgsKwargs

from stabdeq.errors import ConfigError, closest
from stabdeq.registry import Registry

REGISTERED = "registered"  # the tag of all names that are not ours


def by_name(default: str, ours: tuple[str, ...]) -> Discriminator:
    """Return what chooses among settings by their ``name``, ``default`` where none is given; not of ``ours`` is ``REGISTERED``."""

    def tag(values: Any) -> str:
        name = values.get("name", default) if isinstance(values, Mapping) else getattr(values, "name", default)
        return name if name in ours else REGISTERED

    return Discriminator(tag)


def variants(kind: Any) -> dict[str, type]:
    """Return the settings among which ``kind`` chooses, by their tag; none where it is no such choice."""
    union = get_args(kind)[0] if get_origin(kind) is Annotated else None
    tagged = [get_args(one) for one in get_args(union) if get_origin(one) is Annotated]
    return {tag.tag: cls for cls, tag, *_ in tagged if isinstance(tag, Tag)}


def settings_of(cls: Any) -> list[str]:
    """Return the names of the settings of the dataclass ``cls``, but for ``name`` itself."""
    return [field.name for field in fields(cls) if field.name != "name"] if is_dataclass(cls) else []


def with_options(cls: type, values: Any) -> Any:
    """Return ``values`` with all that are no settings of ``cls`` moved into ``options``, for the maker of a registered name."""
    given = values.kwargs if isinstance(values, ArgsKwargs) else values
    if not isinstance(given, Mapping) or not isinstance(given.get("options", {}), Mapping):
        return values
    known = {field.name for field in fields(cls)}
    options = {**given.get("options", {}), **{key: value for key, value in given.items() if key not in known}}
    return {key: value for key, value in given.items() if key in known} | {"options": options}


def require_options(registry: Registry, name: str, options: Mapping[str, Any]) -> None:
    """Raise ConfigError where one of ``options`` is no keyword argument of the maker registered as ``name``."""
    parameters = inspect.signature(registry[name]).parameters.values()
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return
    known = [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_POSITIONAL]
    for option in options:
        if option not in known:
            having = closest(option, known) if known else "it has no settings"
            raise ConfigError(f"{option!r} means nothing to the {registry.sort} {name}: {having}")


def make(registry: Registry, name: str, settings: Mapping[str, Any]) -> Any:
    """Return what the maker ``name`` makes of ``settings``; raise ConfigError where it refuses them."""
    maker: Callable[..., Any] = registry[name]
    try:
        return maker(**settings)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"the {registry.sort} {name} cannot be made with {dict(settings)}: {type(error).__name__}: {error}"
        ) from error
