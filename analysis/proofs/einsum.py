"""``einsum`` and ``inner`` as products and sums, which are the same operations whatever the lengths are."""

import string
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Einsum(TorchFunctionMode):
    """Computes ``einsum`` and ``inner`` as products and sums, whatever the lengths are: PyTorch takes another way where one is 1."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.einsum and isinstance(args[0], str) and not kwargs:
            operands = args[1] if len(args) == 2 and isinstance(args[1], list | tuple) else args[1:]
            return _einsum(args[0].replace(" ", ""), list(operands))
        if func in (torch.inner, Tensor.inner) and not kwargs and 1 in (args[0].dim(), args[1].dim()):
            return (args[0] * args[1]).sum(-1)
        return func(*args, **(kwargs or {}))


def _einsum(equation: str, operands: list[Tensor]) -> Tensor:
    """Return the sum over all indices that stand in no result of the products of ``operands``; no index stands twice in one."""
    inputs, arrow, output = equation.partition("->")
    terms = inputs.split(",")
    if not arrow:
        output = "".join(letter for letter in sorted(set(inputs) - set(",.")) if inputs.count(letter) == 1)
        output = "..." + output if "..." in inputs else output
    if "..." in equation and len(terms) == len(operands):
        others = [letter for letter in string.ascii_letters if letter not in equation]
        lengths = [operand.dim() - len(term) + 3 for term, operand in zip(terms, operands, strict=True)]
        most = (
            max(length for term, length in zip(terms, lengths, strict=True) if "..." in term) if "..." in inputs else 0
        )
        terms = [
            term.replace("...", "".join(others[most - length : most]))
            for term, length in zip(terms, lengths, strict=True)
        ]
        output = output.replace("...", "".join(others[:most]))
    letters = sorted(set("".join(terms)))
    if any(len(set(term)) < len(term) for term in terms) or len(terms) != len(operands):
        return torch.einsum(equation, operands)
    order = [*output, *(letter for letter in letters if letter not in output)]
    product: Any = 1.0
    for term, operand in zip(terms, operands, strict=True):
        aligned = operand.permute([term.index(letter) for letter in order if letter in term])
        for place, letter in enumerate(order):
            aligned = aligned if letter in term else aligned.unsqueeze(place)
        product = aligned if isinstance(product, float) else product * aligned
    summed = list(range(len(output), len(order)))
    return product.sum(summed) if summed else product
