"""A GPU that is not there: the CPU computes its tensors, and raises where a GPU would as tensors of two devices meet.

It knows nothing of streams, kernels and speed, and what ``torch.compile`` compiles does not reach it.
"""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_functorch_wrapped_tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
INDICES = {torch.bool, torch.uint8, torch.int32, torch.int64}
READ_BY_CPU = {Tensor.numpy, Tensor.__array__, Tensor.__dlpack__}


class DevicesMixedError(RuntimeError):
    """A tensor of the GPU met one of the CPU, or was read as if the CPU had its memory."""


@contextmanager
def pretended_gpu() -> Iterator["Devices"]:
    """Within it there is one GPU, ``cuda``: what is put there says so of itself, and so does all that is computed from it.

    What is yielded says whether it was ``used``. Raises DevicesMixedError where an operation gets tensors of both devices that a GPU
    would not take together.
    """
    memory = SimpleNamespace(total_memory=2**35)
    calls = _Calls(devices := Devices())
    engine, autocast = torch.autograd._engine_run_backward, torch.autocast.__init__  # type: ignore[attr-defined]

    def run_backward(*arguments: Any, **options: Any) -> Any:
        with calls:  # it is reached from ``Tensor.backward``, whose body the mode does not see
            return engine(*arguments, **options)

    def autocast_on_cpu(self: torch.autocast, device_type: str, *arguments: Any, **options: Any) -> None:
        autocast(self, "cpu", *arguments, **options)

    with ExitStack() as stack:
        for owner, name, value in (
            (torch.cuda, "is_available", lambda: True),
            (torch.cuda, "synchronize", lambda: None),
            (torch.cuda, "mem_get_info", lambda device: (2**34, 2**35)),
            (torch.cuda, "get_device_name", lambda device: "a pretended GPU"),
            (torch.cuda, "get_device_properties", lambda device: memory),
            *(
                (torch.optim.Optimizer, name, lambda self: None)
                for name in vars(torch.optim.Optimizer)
                if "graph_capture" in name
            ),
            (torch.autograd, "_engine_run_backward", run_backward),
            (torch.autocast, "__init__", autocast_on_cpu),
        ):
            stack.enter_context(patch.object(owner, name, value))
        stack.enter_context(calls)
        stack.enter_context(_Operations(devices))
        yield devices


class Devices:
    """Where each storage lies: on the GPU, on the CPU, or, made inside of PyTorch, on the device that its maker had in mind (None)."""

    def __init__(self) -> None:
        self.used = False  # whether anything was put on the GPU
        # By number, which no other storage gets as long as there is a reference to this one.
        self._elsewhere: dict[int, tuple[StorageWeakRef, torch.device | None]] = {}

    def of(self, tensor: Tensor) -> torch.device | None:
        return self._elsewhere.get(_storage(tensor)._cdata, (None, CPU))[1]

    def put(self, tensors: Any, device: torch.device | None) -> Any:
        """Note that all in ``tensors`` are on ``device``, and return them."""
        for tensor in _tensors((tensors,)):
            reference = StorageWeakRef(_storage(tensor))
            if device == CPU:
                self._elsewhere.pop(reference.cdata, None)
            else:
                self._elsewhere[reference.cdata] = (reference, device)
                self.used = self.used or device == GPU
        return tensors


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Yield the tensors of lists and dictionaries, and of those within (as torch's pytree does, in a fifth of its time)."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | list):
            yield from _tensors(value)
        elif isinstance(value, dict):
            yield from _tensors(value.values())


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    while is_functorch_wrapped_tensor(tensor):  # within vmap and its like
        tensor = get_unwrapped(tensor)
    return tensor.untyped_storage()


class _Operations(TorchDispatchMode):
    """Gives the result of an operation the device of its tensors."""

    def __init__(self, devices: Devices) -> None:
        super().__init__()
        self._devices = devices

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = list(_tensors((args, kwargs)))
        where = [self._devices.of(each) for each in given]
        name = func._schema.name
        if GPU in where and CPU in where and name != "aten::copy_":
            self._require_one_device(name, given, where)
        result = func(*args, **(kwargs or {}))
        if name == "aten::copy_":
            return result
        device = next((device for device in (GPU, CPU) if device in where), None)
        return result if device == CPU else self._devices.put(result, device)

    def _require_one_device(self, name: str, given: list[Tensor], where: list[torch.device | None]) -> None:
        """A number may lie on the CPU, and so may the indices of a GPU's tensor."""
        indexed = name in INDEXING and where[0] == GPU
        for each, device in zip(given, where, strict=True):
            if device == CPU and each.dim() and not (indexed and each.dtype in INDICES):
                shapes = [(tuple(each.shape), str(device)) for each, device in zip(given, where, strict=True)]
                raise DevicesMixedError(f"{name}: expected all tensors to be on the same device, got {shapes}")


class _Calls(TorchFunctionMode):
    """Answers for the GPU where a program names a device, asks for one, or moves a tensor."""

    def __init__(self, devices: Devices) -> None:
        super().__init__()
        self._devices = devices

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = list(_tensors((args, kwargs)))
        on_gpu = any(self._devices.of(each) == GPU for each in tensors)
        if func == Tensor.device.__get__:  # type: ignore[attr-defined]
            return GPU if on_gpu else CPU
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return on_gpu
        if func in READ_BY_CPU and on_gpu:
            raise DevicesMixedError("a tensor of the GPU is read on the CPU: expected x.cpu() first")
        if func is Tensor.pin_memory:
            return args[0]
        if func in (Tensor.cpu, Tensor.cuda):
            return self._moved(args[0], CPU if func is Tensor.cpu else GPU)
        if func is Tensor.to:
            return self._to(*args, **kwargs)
        return self._made(func, args, kwargs, tensors, GPU if on_gpu else CPU)

    def _made(self, func: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor], device: torch.device) -> Any:
        """Call ``func``; what it makes of no tensor lies where ``device=`` says, or on the CPU."""
        named = kwargs.pop("device", None)
        device = device if named is None else torch.device(named)
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != device.type:
            raise DevicesMixedError(f"{func}: expected a generator on {device}, got one on {generator.device}")
        result = func(*args, **kwargs)
        if func in (torch.as_tensor, torch.asarray) and tensors:
            return self._moved(result, device) if named is not None else result
        if named is not None or not tensors or func is Tensor.new_tensor:
            return self._devices.put(result, GPU if device.type == "cuda" else CPU)
        return result

    def _moved(self, x: Tensor, device: torch.device) -> Tensor:
        device = GPU if device.type == "cuda" else CPU
        return x if self._devices.of(x) == device else _Copy.apply(x, self._devices, device)

    def _to(self, x: Tensor, *args: Any, non_blocking: bool = False, **kwargs: Any) -> Tensor:
        device, rest = kwargs.pop("device", None), []
        for each in args:
            if isinstance(each, Tensor):
                device = self._devices.of(each)
                rest.append(each.dtype)
            elif isinstance(each, str | torch.device):
                device = each
            elif isinstance(each, torch.dtype):
                rest.append(each)
        x = x if device is None else self._moved(x, torch.device(device))
        options = {name: value for name, value in kwargs.items() if value is not None}
        return x.to(*rest, **options) if rest or options else x


class _Copy(torch.autograd.Function):
    """A copy on the other device; its gradient goes the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, devices: Devices, device: torch.device) -> Tensor:
        ctx.devices, ctx.back = devices, devices.of(x)
        return devices.put(x.detach().clone(), device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return ctx.devices.put(gradient.detach().clone(), ctx.back), None, None
