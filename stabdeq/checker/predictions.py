"""Claims about predictions: l2 radii, and boxes of pixels, within which no image is classified otherwise."""

from typing import Any

from flint import arb, arb_mat

from .case import Case
from .ends import read_features, read_head
from .inequalities import proved_gain
from .matrices import affine, diagonal, norm_of, relu
from .reading import fields, items, number, numbers, place, require

Named = dict[str, Any]
Pair = tuple[int, int]


def radius(case: Case, pairs: Any, whole: Any, everywhere: Any, radii: Any, counts: Any) -> Named:
    """Within the radius of an image, no image is classified otherwise: its margins exceed gain times radius."""
    require(case.count > 0, "radius: expected images")
    R, r = read_head(case.model)
    h, E = read_features(case.model, case.levels, arb(0))
    rows = _differences(R)
    gains = _proved_gains(case, rows, E, pairs, whole)
    errors = _errors(case, h, fields(everywhere, "radius.everywhere", "gain", "multiplier"))
    logits = affine(affine(case.activations, case.cell.D, case.cell.d), R, r)
    certified = []
    for i, (image, y, text) in enumerate(case.places(radii, "radius.radii", 3)):
        where = f"radius.radii[{i}]"
        reach = number(text, where)
        place(y, case.model.classes, f"{where}: class")
        require(reach > 0, f"{where}: expected a positive radius")
        for j in set(range(case.model.classes)) - {y}:
            require((y, j) in gains, f"{where}: no gain is given for classes {y} and {j}")
            margin = logits[image, y] - logits[image, j] - norm_of(rows[y, j].entries()) * errors[image]
            require(margin > gains[y, j] * arb(reach), f"{where}: the margin to class {j} is too small for it")
        if y == case.labels[image]:
            certified.append(reach)
    at = [
        _counted(case, certified, entry, f"radius.counts[{i}]")
        for i, entry in enumerate(items(counts, "radius.counts"))
    ]
    return {"radii": len(radii), "images": case.count, "counts": ", ".join(at)}


def _counted(case: Case, certified: list[float], entry: Any, where: str) -> str:
    text, count = items(entry, where, 2)
    eps = number(text, where)
    true = sum(reach >= eps for reach in certified)
    require(
        place(count, case.count + 1, where) == true and eps > 0,
        f"{where}: {true} radii of the right class reach {eps!r}",
    )
    return f"{count} within {eps!r}"


def _differences(R: arb_mat) -> dict[Pair, arb_mat]:
    """Return R_y - R_j for each pair of classes."""
    rows = [arb_mat([row]) for row in R.tolist()]
    return {(y, j): rows[y] - rows[j] for y in range(len(rows)) for j in range(len(rows)) if y != j}


def _proved_gains(case: Case, rows: dict[Pair, arb_mat], E: arb_mat, pairs: Any, whole: Any) -> dict[Pair, arb]:
    """Return the gains from pixels to differences of logits: for each of ``pairs``, by its multiplier; else by the ``whole``'s."""
    cell, gains = case.cell, {}
    G = cell.U * (E * E.transpose()) * cell.U.transpose()
    if whole is not None:
        g = proved_gain(cell, cell.D, G, fields(whole, "radius.whole", "gain", "multiplier"), "radius.whole")
        gains = {pair: g * norm_of(row.entries()) for pair, row in rows.items()}
    for i, entry in enumerate(items(pairs, "radius.pairs")):
        where = f"radius.pairs[{i}]"
        classes, *proof = fields(entry, where, "classes", "gain", "multiplier")
        y, j = (place(x, case.model.classes, f"{where}.classes") for x in items(classes, f"{where}.classes", 2))
        require(y != j, f"{where}.classes: expected two different ones")
        gains[y, j] = gains[j, y] = proved_gain(cell, rows[y, j] * cell.D, G, proof, where)
    return gains


def _errors(case: Case, h: arb_mat, everywhere: list[Any]) -> list[arb]:
    """Return bounds of ||D (w - w*)|| for the given activations w and the true ones w*.

    With rho = relu(M w + U h + c) - w, w + rho is the true solution once M rho is taken off its input. So the distance is at most
    ||D rho|| + g ||M rho||, g the gain from all inputs.
    """
    cell, w = case.cell, case.activations
    g = proved_gain(cell, cell.D, diagonal([1] * cell.M.nrows()), everywhere, "radius.everywhere")
    rho = relu(affine(w, cell.M, cell.c) + h * cell.U.transpose()) - w
    moved = zip((rho * cell.D.transpose()).tolist(), (rho * cell.M.transpose()).tolist(), strict=True)
    return [norm_of(state) + g * norm_of(entering) for state, entering in moved]


def linf(case: Case, at: Any) -> Named:
    """Where each pixel moves by at most eps within [0, 1], an image is classified as labelled.

    The cell contracts in the maximum norm, and maps a box of states into itself for all features in reach, so z* lies there.
    """
    require(case.model.settings["cell"] == "interval" and case.count > 0, "linf: expected an interval cell, and images")
    W, said = case.cell.M, []
    require(all(sum(map(abs, row)) < 1 for row in W.tolist()), "linf: the cell is not proved to contract")
    R, r = read_head(case.model)
    for k, entry in enumerate(items(at, "linf.at")):
        where = f"linf.at[{k}]"
        text, boxes = fields(entry, where, "eps", "boxes")
        eps = number(text, f"{where}.eps")
        require(eps > 0, f"{where}.eps: expected a positive number")
        listed = case.places(boxes, f"{where}.boxes", 3)
        size = len(case.levels) // case.count
        chosen = b"".join(case.levels[size * image : size * (image + 1)] for image, _, _ in listed)
        require(bool(listed), f"{where}.boxes: there are none")
        h, _ = read_features(case.model, chosen, arb(eps))
        ends = [[numbers(end, case.model.n, f"{where}.boxes[{i}]") for end in box[1:]] for i, box in enumerate(listed)]
        states = arb_mat([[arb(low).union(arb(high)) for low, high in zip(*pair, strict=True)] for pair in ends])
        images = relu(affine(states, W, case.cell.c) + h)
        for i, (image, box, mapped) in enumerate(zip(listed, states.tolist(), images.tolist(), strict=True)):
            inside = all(outer.contains(inner) for outer, inner in zip(box, mapped, strict=True))
            require(inside, f"{where}.boxes[{i}]: the cell does not map the box into itself")
            y, z = case.labels[image[0]], arb_mat([mapped]).transpose()
            for (own, j), row in _differences(R).items():
                least = (row * z)[0, 0] + r[own, 0] - r[j, 0]
                require(own != y or least > 0, f"{where}.boxes[{i}]: class {j} is not excluded")
        said.append(f"{len(listed)} where eps = {eps!r}")
    return {"images": case.count, "counts": ", ".join(said)}
