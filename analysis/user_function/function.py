"""A function that the user wrote: found by name, tried out, and called so that every fault names the state that caused it."""

import copy
import importlib
import importlib.util
import inspect
import os
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from analysis.evidence.sampling import in_ball
from analysis.findings import short
from analysis.user_function.advice import Output, how_to_write
from stabdeq.errors import ConfigError, EvaluationError, closest
from stabdeq.lyapunov import InputConvexLyapunov


class CentredValue(nn.Module):
    """This library's V as a function of states: its value at z - c, without the gradient that it returns besides."""

    def __init__(self, lyapunov: InputConvexLyapunov, centre: Tensor | None) -> None:
        super().__init__()
        self.lyapunov = lyapunov
        self.register_buffer("centre", centre)

    def forward(self, states: Tensor) -> Tensor:
        """Return V (B,) at ``states`` (B, n)."""
        return self.lyapunov(states if self.centre is None else states - self.centre)[0]


@dataclass(frozen=True)
class ForeignFunction:
    """V, (B, n) -> (B,), a velocity, (B, n) -> (B, n), or a constraint, (B, n) -> (B,) or (B, k), as somebody else wrote it.

    States and results are float64; ``width`` is k, None where there is no such dimension.
    ``is_numpy``: it takes and returns NumPy arrays. ``is_differentiable``: autograd sees through it. ``dtype`` is what
    it computes in, as far as its result tells. ``differentiates``: it takes gradients itself, so that they are switched on for it.
    ``sha256`` is of its file as it was loaded, empty where there is none.
    """

    name: str
    function: Callable[[Any], Any]
    dim: int
    output: Output
    is_numpy: bool = False
    is_differentiable: bool = False
    dtype: torch.dtype = torch.float64
    differentiates: bool = False
    sha256: str = ""
    width: int | None = None

    @property
    def source(self) -> dict[str, str]:
        """Where it is from: its name, and the SHA-256 of its file as far as there is one."""
        return {"name": self.name} | ({"sha256": self.sha256} if self.sha256 else {})

    @property
    def why_unread(self) -> str:
        """Why no proof can be of a function of NumPy arrays, and what to do."""
        return f"{self.name} computes with NumPy, which no proof can read: write it with torch."

    def __call__(self, states: Tensor) -> Tensor:
        """Return the result at ``states`` (B, n). Raises EvaluationError, with the state, where it fails."""
        try:
            result = self.raw(states)
        except Exception as error:
            raise self._blame(states, error) from error
        expected = self._shape(len(states))
        if not isinstance(result, Tensor) or tuple(result.shape) != expected:
            raise self._error(f"must return shape {expected} for states {tuple(states.shape)}, got", result, states)
        if result.is_complex():
            raise self._error("must return real numbers, got", result, states)
        if result.layout != torch.strided or result.device != states.device:
            where = f"{str(result.layout).removeprefix('torch.')} on {result.device},"
            raise self._error(
                f"must return a dense tensor on {states.device}, where the states are, got {where}", result, states
            )
        return result.double()

    def raw(self, states: Tensor) -> Any:
        """Return what the function itself returns at a copy of ``states``, an array as a tensor."""
        if self.differentiates and not torch.is_grad_enabled():
            with torch.enable_grad():
                result = self.function(states.clone())
            return result.detach() if isinstance(result, Tensor) else result
        if not self.is_numpy:
            return self.function(states.clone())
        import numpy

        result = self.function(states.detach().cpu().numpy().copy())
        is_array = isinstance(result, numpy.ndarray | numpy.generic)
        return torch.as_tensor(numpy.array(result), device=states.device) if is_array else result

    def _shape(self, batch: int) -> tuple[int, ...]:
        width = self.dim if self.output == "velocity" else self.width
        return (batch,) if width is None else (batch, width)

    def _error(self, fault: str, result: Any, states: Tensor) -> EvaluationError:
        came = f"{tuple(result.shape)} of {result.dtype}" if isinstance(result, Tensor) else type(result).__name__
        state = states[0].tolist()
        return EvaluationError(f"{self.name} {fault} {came} (first state: {short(state)})", state)

    def _blame(self, states: Tensor, error: Exception) -> EvaluationError:
        """Return the error with the state that raises it, found by halving the batch."""
        batch = states
        while len(batch) > 1:
            half = batch[: len(batch) // 2]
            batch = half if self._raises(half) else batch[len(batch) // 2 :]
        state = batch[0].tolist()
        alone = "" if self._raises(batch) else f" in a batch of {len(states)}, though not alone"
        what = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"
        return EvaluationError(f"{self.name} raises {what}, at the state {short(state)}{alone}", state)

    def _raises(self, states: Tensor) -> bool:
        try:
            self.raw(states)
        except Exception:
            return True
        return False


def load_function(
    given: str | Callable[[Any], Any],
    dim: int,
    output: Output,
    *,
    centre: Tensor | None = None,
    trial: Tensor | None = None,
    unnamed: str = "",
) -> ForeignFunction:
    """Return the function ``given``, at "module:name" or in the ONNX file "name.onnx", after a try at the states ``trial`` (B, dim).

    What is given may be a function of torch tensors or of NumPy arrays, a module, or a factory: a class, or a function
    that, called without arguments, returns the function. A module is copied, put in evaluation mode and widened to
    float64. An ``InputConvexLyapunov`` of this library becomes its value at z - ``centre`` (dim,), by default 0. By default it
    is tried in the unit ball; let there be more states than coordinates, so that a sum over the wrong axis shows. ``unnamed`` is
    what messages call a lambda, by default V or f.

    Raises:
        ConfigError: it is not found or not callable, it raises at the first states or returns there what is no value or velocity
            of each (with how to wrap it, where that is seen), or it is random or couples the states of a batch.
    """
    location = given if isinstance(given, str) else _name_of(given, unnamed or ("V" if output == "value" else "f"))
    found, digest = _found(given, output) if isinstance(given, str) else (given, _digest_of(given))
    found = _made(found, location)
    if isinstance(found, InputConvexLyapunov) and output == "value":
        found = CentredValue(found, centre)
    if trial is None:
        trial = in_ball(dim + 3, torch.zeros(dim, dtype=torch.float64), 1.0, torch.Generator().manual_seed(0))
    function = replace(_adapted(found, location, dim, output, trial), sha256=digest)
    if _needs_gradients(function, trial):
        function = replace(function, differentiates=True)
    if output == "constraint":
        function = replace(function, width=_width(function, trial))
    try:
        first = function(trial)
    except EvaluationError as error:
        rule, wrapped = how_to_write(found, location, dim, output, trial)
        raise ConfigError(f"{rule}: {wrapped}" if wrapped else f"{error}; {rule}") from error
    _require_repeatable(function, trial, first)
    return function


def _found(location: str, output: Output) -> tuple[Any, str]:
    """Return what stands at ``location``, "module:name" or an ONNX file, and the SHA-256 of its file.

    A value network's output (B, 1) is taken as (B,).
    """
    if not location.endswith(".onnx"):
        found = find_object(location, "energy:V, or an ONNX file such as V.onnx")
        module = sys.modules.get(location.partition(":")[0].removesuffix(".py"))
        return found, _digest(getattr(module, "__file__", None))
    from analysis.user_function.onnx_files import load_onnx

    network = load_onnx(location)
    return (lambda states: network(states).squeeze(1)) if output == "value" else network, network.sha256


def _digest_of(function: Callable[[Any], Any]) -> str:
    with suppress(TypeError):  # an object of a class that was written elsewhere
        return _digest(inspect.getsourcefile(function))
    return ""


def _digest(file: str | None) -> str:
    """Return the SHA-256 of a source file, taken at once: Python, which has just read it, does not tell of which bytes."""
    return sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else ""


def _needs_gradients(function: ForeignFunction, trial: Tensor) -> bool:
    """Return whether ``function`` raises where gradients are switched off, and not where they are on."""

    def raises() -> bool:
        try:
            function.raw(trial)
        except Exception:
            return True
        return False

    with torch.no_grad():
        fails_without = raises()
    with torch.enable_grad():
        return fails_without and not raises()


def _width(function: ForeignFunction, trial: Tensor) -> int | None:
    """Return k where ``function`` gives (B, k)."""
    with suppress(Exception):  # what it raises is met again when it is tried
        result = function.raw(trial)
        return result.shape[1] if isinstance(result, Tensor) and result.dim() == 2 else None
    return None


def _name_of(function: Callable[[Any], Any], unnamed: str) -> str:
    """Return what messages call a function that was not given by name."""
    name = getattr(function, "__name__", type(function).__name__)
    return unnamed if name == "<lambda>" else name


def find_object(location: str, example: str) -> Any:
    """Return what stands at ``location``, "module:name", the current folder included; ``example`` is one, for the error."""
    module_name, _, attribute = location.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"expected MODULE:NAME, such as {example}, got {location!r}")
    module = _import(module_name.removesuffix(".py"))
    found: Any = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            own = {name: item for name, item in vars(found).items() if callable(item) and not name.startswith("_")}
            public = [name for name, item in own.items() if getattr(item, "__module__", None) == module_name]
            raise ConfigError(f"{module_name} has no {part!r}: {closest(part, public)}")
        found = getattr(found, part)
    return found


def source_of(location: str) -> Path | None:
    """Return the file in which the module of ``location``, "module:name", stands; it need not be imported. None where there is none."""
    name = location.partition(":")[0].removesuffix(".py")
    _look_in_the_current_folder()
    module = sys.modules.get(name)
    if module is None:
        with suppress(ImportError, ValueError):  # ValueError: what is no name of a module
            spec = importlib.util.find_spec(name)
            return Path(spec.origin) if spec is not None and spec.origin is not None else None
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _look_in_the_current_folder() -> None:
    if os.getcwd() not in sys.path:
        # At the end: a file here may not stand in for a library of the same name.
        sys.path.append(os.getcwd())


def _import(name: str) -> ModuleType:
    _look_in_the_current_folder()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = "" if error.name == name else f" (it imports {error.name!r}, which is missing)"
        raise ConfigError(
            f"no module {name!r} on the import path or in {os.getcwd()}{missing}; call stabdeq from the folder of {name}.py"
        ) from error
    except Exception as error:
        raise ConfigError(f"importing {name!r} raises {type(error).__name__}: {error}") from error


def _made(found: Any, location: str) -> Callable[[Any], Any]:
    """Return the function itself: a factory's product, a module ready for evaluation."""
    found = made_by_factory(found, location)
    if not callable(found):
        raise ConfigError(
            f"{location} is of type {type(found).__name__}; expected a function, a module or a factory of one"
        )
    if isinstance(found, nn.Module):
        return copy.deepcopy(found).double().eval().requires_grad_(False)
    return found


def made_by_factory(found: Any, location: str) -> Any:
    """Return what ``found`` makes where it is a factory, a class or a function without arguments; else ``found`` itself."""
    if not (isinstance(found, type) or (callable(found) and _takes_nothing(found))):
        return found
    try:
        return found()
    except Exception as error:
        raise ConfigError(f"{location}, called without arguments, raises {type(error).__name__}: {error}") from error


def _takes_nothing(function: Callable[..., Any]) -> bool:
    try:
        return not inspect.signature(function).parameters
    except (TypeError, ValueError):
        return False


def _adapted(found: Callable[[Any], Any], name: str, dim: int, output: Output, trial: Tensor) -> ForeignFunction:
    """Return the function with what it speaks: tensors with autograd, tensors without, or arrays."""
    plain = ForeignFunction(name, found, dim, output)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = plain.raw(trial.clone().requires_grad_())
            if isinstance(result, Tensor):
                kind = _computed_in(result)
                return ForeignFunction(name, found, dim, output, False, result.requires_grad, kind)
        except Exception:
            # A NumPy function refuses a tensor that needs a gradient. A true fault is met again below.
            pass
        arrays = ForeignFunction(name, found, dim, output, is_numpy=True)
        try:
            result = arrays.raw(trial)
        except Exception:
            return plain
    if isinstance(result, Tensor):
        return ForeignFunction(name, found, dim, output, is_numpy=True, dtype=_computed_in(result))
    if callable(result):
        return _adapted(_made(result, name), name, dim, output, trial)
    return plain


def _require_repeatable(function: ForeignFunction, trial: Tensor, first: Tensor) -> None:
    again = function(trial)
    differs = ~torch.isclose(first, again, rtol=1e-9, atol=0, equal_nan=True).reshape(len(trial), -1).all(1)
    if bool(differs.any()):
        row = int(differs.nonzero()[0])
        raise ConfigError(
            f"{function.name} is random: at {short(trial[row].tolist())} two calls gave {short(first[row].tolist())} and "
            f"{short(again[row].tolist())}; fix its seed or switch the randomness off"
        )
    alone = torch.cat([function(state[None]) for state in trial])
    if not torch.allclose(first, alone, rtol=1e-5, atol=1e-8, equal_nan=True):
        raise ConfigError(
            f"{function.name} couples the states of a batch: alone, a state gives another result than among others"
        )


def _computed_in(result: Tensor) -> torch.dtype:
    """Return the dtype that ``result`` was computed in: float64 of which each number is one of float32 was widened from it."""
    if not result.is_floating_point():
        return torch.float64
    widened = result.dtype == torch.float64 and bool((result.detach() == result.detach().float()).all())
    return torch.float32 if widened else result.dtype
