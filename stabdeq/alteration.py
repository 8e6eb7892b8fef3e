"""Whether a module still computes what its class and weights say: proofs from the weights hold of no other."""

from collections.abc import Callable, Collection, Hashable, Iterator
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module
from torch.nn.utils.parametrizations import _Orthogonal
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations

from stabdeq.errors import ConfigError

OF_LIBRARIES = ("stabdeq", "torch", "torchvision", "builtins")
OF_EVERY_MODULE = frozenset(vars(nn.Module()))


@cache
def prototype(make: Callable[..., nn.Module], *arguments: Hashable) -> nn.Module:
    """Return what ``make(*arguments)`` makes, without storage: the parts that a module as made has, and their sizes."""
    with torch.device("meta"):
        return make(*arguments)


def alteration(module: nn.Module, name: str, like: nn.Module | None = None, known: Collection[str] = ()) -> str | None:
    """Return in words what may make ``module``, or a part of it, compute something else than its class and weights say; or None.

    That is a hook, on the part or for all modules, an attribute or a function in the place of a method, a tensor of a class of
    its own, and, beside a module ``like`` it, a part of another class, one too many, such as a parametrization, or one missing, a
    tensor of another shape, with which the same operations may mean something else, or another plain attribute, such as a
    convolution's padding, but for those that the caller has ``known``. ``name`` is what the words call the module.
    """
    for place, part in module.named_modules():
        what = own_alteration(part, _joined(name, place))
        if what is not None:
            return what
    if like is None:
        return None
    found, expected = _parts(module), _parts(like)
    for place in expected | found:
        here, wanted = found.get(place), expected.get(place)
        if here is not wanted:
            return f"{_joined(name, place)} is {_in_words(here)}, expected {_in_words(wanted)}"
    sizes = _sizes(module)
    for place, size in _sizes(like).items():
        if sizes[place] != size:
            return f"{_joined(name, place)} is of shape {tuple(sizes[place])}, expected {tuple(size)}"
    return _other_attribute(module, name, like, known)


def own_alteration(module: nn.Module, name: str) -> str | None:
    """Return in words what may make ``module`` itself, its parts aside, compute something else than it says; or None."""
    return next(_alterations(module, name), None)


def require_unaltered(what: str | None) -> None:
    """Raise ConfigError where ``what`` was found to be altered."""
    if what is not None:
        raise ConfigError(f"{what}, so that its weights do not tell what it computes: undo that")


def _alterations(module: nn.Module, name: str) -> Iterator[str]:
    for hooks, where in (
        (every_module._global_forward_pre_hooks, f"{name}, as every module, has a forward pre-hook"),
        (every_module._global_forward_hooks, f"{name}, as every module, has a forward hook"),
        (module._forward_pre_hooks, f"{name} has a forward pre-hook"),
        (module._forward_hooks, f"{name} has a forward hook"),
    ):
        if hooks:
            yield where
    tensors = module._parameters | module._buffers
    for key, value in vars(module).items():
        if hasattr(type(module), key) or key in tensors or key in module._modules:
            yield f"{name} has an attribute {key} of its own, in the place of its class's"
        if isinstance(value, Tensor | nn.Module):
            yield f"{name} holds {key} as a plain attribute"
    for key, value in tensors.items():
        if value is not None and type(value) not in (Tensor, nn.Parameter):
            yield f"{_joined(name, key)} is a {type(value).__name__}, not a plain tensor"
    for key, chain in module.parametrizations.items() if is_parametrized(module) else ():  # pyrefly: ignore
        if [type(each) for each in chain] != [_Orthogonal]:  # of the heads
            yield f"{_joined(name, key)} is parametrized by {', '.join(type(each).__name__ for each in chain)}"
    for cls in type(module).__mro__:
        for key, value in vars(cls).items():
            if key != "__init__" and not _is_of_a_library(value):
                yield f"{name} is a {type(module).__name__}, whose {key} is neither this library's nor PyTorch's"


def _is_of_a_library(member: object) -> bool:
    """Return whether a class's member is no function or descriptor, or one that a library, or Python, defines."""
    function = getattr(member, "fget", None) or getattr(member, "__func__", member)
    if not (callable(function) or hasattr(function, "__get__")):
        return True
    # A wrapper takes the name of the module whose function it wraps, and not its globals.
    home = getattr(function, "__globals__", {}).get("__name__") or getattr(function, "__module__", None)
    return home is None or home.partition(".")[0] in OF_LIBRARIES


def _parts(module: nn.Module) -> dict[str, type]:
    """Return the class of each part, a parametrized one's as it was before; of a tensor, parameter or buffer."""
    parts: dict[str, type] = {
        name: type_before_parametrizations(part) for name, part in module.named_modules(remove_duplicate=False)
    }
    parts |= dict.fromkeys((name for name, _ in module.named_parameters(remove_duplicate=False)), nn.Parameter)
    return parts | dict.fromkeys((name for name, _ in module.named_buffers(remove_duplicate=False)), nn.Buffer)


def _sizes(module: nn.Module) -> dict[str, torch.Size]:
    """Return the shape of each parameter and buffer."""
    own = (module.named_parameters(remove_duplicate=False), module.named_buffers(remove_duplicate=False))
    return {name: tensor.shape for part in own for name, tensor in part}


def _other_attribute(module: nn.Module, name: str, like: nn.Module, known: Collection[str]) -> str | None:
    """Return in words which plain attribute of a part of ``module`` is not as that of the same part of ``like``; or None."""
    for place, wanted in like.named_modules():
        here = vars(module.get_submodule(place))
        for key, value in vars(wanted).items():
            if key in OF_EVERY_MODULE or key in known:
                continue
            # Of another class, a value may say of itself that it is equal.
            if key not in here or type(here[key]) is not type(value) or here[key] != value:
                found = repr(here[key]) if key in here else "nothing"
                return f"{_joined(name, f'{place}.{key}' if place else key)} is {found}, expected {value!r}"
    return None


def _in_words(cls: type | None) -> str:
    return "nothing" if cls is None else f"a {cls.__name__}"


def _joined(name: str, part: str) -> str:
    return f"{name}'s {part}" if part else name
