"""The file of ``stabdeq check --proof``, and what ``stabdeq.checker`` says of it, also where it was altered."""

import copy
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from check_runs import run as run_command
from flint import arb
from torch import Tensor

import stabdeq
from analysis.proofs.programs import UnwrittenError, program
from analysis.proofs.tracing import read
from stabdeq.checker import boxes, jets, programs
from stabdeq.checker.door import check
from stabdeq.checker.reading import Failure, Unreadable
from stabdeq.errors import ConfigError

pytestmark = pytest.mark.usefixtures("short_hunts")
QUICK: dict[str, Any] = {"samples": 256, "starts": 2, "boxes": 4096}
WEIGHT = torch.tensor([[0.7, -0.3], [0.2, 0.9], [-0.5, 0.4]], dtype=torch.float64)


def bowl(z: Tensor) -> Tensor:
    return 1.5 * z[:, 0] ** 2 - z[:, 0] * z[:, 1] + z[:, 1] ** 2


def oscillator(z: Tensor) -> Tensor:
    """The Van der Pol oscillator backwards, whose equilibrium is stable."""
    return torch.stack([-z[:, 1], z[:, 0] - (1 - z[:, 0] ** 2) * z[:, 1]], 1)


def network(z: Tensor) -> Tensor:
    return (z**2).sum(1) + 0.1 * (torch.tanh(z @ WEIGHT.mT) ** 2).sum(1)


def sink(z: Tensor) -> Tensor:
    return -z - 0.2 * torch.sin(z.flip(1))


def shrink(z: Tensor) -> Tensor:
    return 0.5 * z - 0.1 * torch.relu(z.flip(1))


def proved(path: Path, V: Any, f: Any = None, **stated: Any) -> list[str]:
    """Return what the checker says of the file that ``stabdeq.check`` writes, once all that was asked is proved and in it."""
    report = stabdeq.check(V, f, proof=path, **({"dim": 2} | QUICK | stated))
    assert [finding.verdict.name for finding in report.findings] == ["PROVED"] * len(report.findings), report
    assert not any(one.asked_for for one in report.skipped)
    assert all("The proof file shows the claim on " in finding.evidence for finding in report.findings)
    return check(path.read_bytes())[2:]


def test_claims_along_a_flow_are_checked(tmp_path):
    names = ["zero", "positive", "equilibrium", "decrease", "decay"]
    lines = proved(tmp_path / "p.json", bowl, oscillator, alpha=0.1, claims=names)
    assert [line.split(" for every z in ")[0] for line in lines] == [
        "V <= 0.0 and V >= 0.0",
        "V > 0.0",
        "f[0] <= 0.0 and f[0] >= 0.0 and f[1] <= 0.0 and f[1] >= 0.0",
        "V-dot < 0.0",
        "V-dot + (0.1) V <= 0.0",
        "V-dot + (0.1) V <= 0.0",
    ]
    assert "[-1.0, 1.0] x [-1.0, 1.0] where |z - c|^2 <= 1.0, but z = c: shown on " in lines[3]
    assert "[0.0, 0.0] x [0.0, 0.0]: shown on 1 box." in lines[5]


@pytest.mark.parametrize("place", [{"radius": 2.0}, {"box": (-1.5, 1.5)}])
def test_between_levels_of_a_network(tmp_path, place):
    stated = {"claims": ["decrease", "invariant"], "sublevel": 1.0, "from_level": 0.25, **place}
    lines = proved(tmp_path / "p.json", network, sink, **stated)
    condition = "|z - c|^2 <= 4.0 and " if "radius" in place else ""
    assert f"where {condition}V <= 1.0 and V >= 0.25: shown on" in lines[0]
    assert len(lines) == (3 if "radius" in place else 6)  # the sphere or the faces where V > 1, and V = 1


@pytest.mark.parametrize("place", [{"radius": 1.0}, {"box": (-1.0, 1.0)}])
def test_claims_along_steps_are_checked(tmp_path, place):
    stated = {"step": shrink, "kappa": 0.25, "inner_radius": 0.125, "sublevel": 0.5, **place}
    lines = proved(tmp_path / "p.json", lambda z: (z**2).sum(1), claims=["decrease", "invariant"], **stated)
    assert lines[0].startswith("V(z+) + (-1.0) V + (0.25) V <= 0.0 for every z in [-1.0, 1.0] x [-1.0, 1.0] where ")
    assert "V <= 0.5 and |z - c|^2 >= 0.015625" in lines[0]
    assert ("|z+ - c|^2 <= 1.0" if "radius" in place else "step[1] <= 1.0") in lines[1]
    assert "V(z+) <= 0.5" in lines[1]


def test_the_centre_is_closed_by_forms_in_steps(tmp_path):
    (line,) = proved(tmp_path / "p.json", network, step=lambda z: 0.5 * torch.sin(z), kappa=0.1, claims=["decrease"])
    assert "c" in json.loads((tmp_path / "p.json").read_text())["claims"][0]["tree"]
    assert ", but z = c" in line


def test_a_barrier_is_checked(tmp_path):
    sets = {"initial": lambda z: (z**2).sum(1) - 0.25, "unsafe": lambda z: 2 - z[:, 0] - z[:, 1]}
    lines = proved(tmp_path / "p.json", lambda z: bowl(z) - 1, oscillator, box=(-1.5, 1.5), **sets)
    assert [line.split(" for every")[0] for line in lines] == ["B <= 0.0", "B > 0.0", "B-dot < 0.0"]


def test_the_command_writes_the_file(tmp_path, monkeypatch):
    (tmp_path / "plant.py").write_text("def V(z):\n    return (z ** 2).sum(1)\n\ndef f(z):\n    return -z\n")
    monkeypatch.chdir(tmp_path)
    given = ["plant:V", "--dim", "2", "--dynamics", "plant:f", "--claims", "decrease", "--samples", "256"]
    code, findings = run_command([*given, "--proof", "p.json"], tmp_path)
    proof = json.loads((tmp_path / "p.json").read_text())
    assert code == 0
    assert "The proof file" in findings["decrease"]["evidence"]
    assert proof["source"]["V"]["name"] == "plant:V"
    assert len(proof["source"]["f"]["sha256"]) == 64
    assert len(check((tmp_path / "p.json").read_bytes())) == 3


def test_what_cannot_be_written_is_said(tmp_path):
    path = tmp_path / "p.json"
    path.write_text("a proof of before, about other functions")
    report = stabdeq.check(lambda z: torch.erf(z).square().sum(1), dim=2, claims=["positive"], proof=path, **QUICK)
    assert report.findings[0].verdict.name == "PROVED"
    assert not path.exists()
    assert "erf" in report.skipped[0].reason
    report = stabdeq.check(bowl, lambda z: z, dim=2, claims=["decrease", "zero", "convex"], proof=path, **QUICK)
    assert [one.check for one in report.skipped if one.asked_for] == ["decrease", "convex"]
    with pytest.raises(ConfigError, match="proof excludes"):
        stabdeq.check(bowl, oscillator, dim=2, sublevel="max", proof=path)


def test_a_power_that_is_no_half_of_a_whole_number_is_left_out(tmp_path):
    path = tmp_path / "p.json"
    report = stabdeq.check(
        lambda z: ((z**2).sum(1) + 1).pow(1.3) - 1, sink, dim=2, claims=["decrease"], proof=path, **QUICK
    )
    assert report["decrease"].verdict.name == "PROVED"
    assert "aten.pow.Tensor_Scalar" in report.skipped[0].reason
    assert not path.exists()


def test_powers_of_halves_are_checked(tmp_path):
    lines = proved(
        tmp_path / "p.json", lambda z: ((z**2).sum(1) + 1).pow(1.5) - 1, sink, claims=["positive", "decrease"]
    )
    assert [line.split(" for every z in ")[0] for line in lines] == ["V > 0.0", "V-dot < 0.0"]


def test_too_few_boxes_are_said(tmp_path):
    stated = {"claims": ["decrease"], "sublevel": 1.0, "from_level": 0.25} | QUICK | {"boxes": 40}
    report = stabdeq.check(network, sink, dim=2, box=(-1.5, 1.5), proof=tmp_path / "p.json", **stated)
    assert "after 40 boxes the checker's bounds leave" in report.skipped[0].reason


@pytest.mark.parametrize(
    ("claim", "V", "place", "reason"),
    [
        (
            "positive",
            lambda z: 1e308 * z[:, 0] + 1e308 * z[:, 0] + 10,
            {"box": (0.0, 0.1), "centre": [0.05, 0.05]},
            "a constant of it",
        ),
        ("zero", bowl, {"radius": 1e200}, "the region is so large that a bound of it lies"),
        ("zero", lambda z: (z - 1.7e308).tanh().square().sum(1), {"centre": [1.7e308] * 2, "radius": 1e308}, "a bound"),
    ],
)
def test_numbers_beyond_floats_are_left_out(tmp_path, claim, V, place, reason):
    report = stabdeq.check(V, dim=2, claims=[claim], proof=tmp_path / "p.json", **QUICK, **place)
    assert report[claim].verdict.name == "PROVED"
    assert reason in report.skipped[0].reason
    assert "beyond float64" in report.skipped[0].reason


def test_a_point_is_not_halved(tmp_path):
    """V(c) is 0 as a difference of equal numbers, which bounds do not show; nor would those of any part of a point."""

    def V(z: Tensor) -> Tensor:
        bias = WEIGHT[:, 0]
        return (z**2).sum(1) + ((torch.tanh(z @ WEIGHT.mT + bias) - torch.tanh(0 * z @ WEIGHT.mT + bias)) ** 2).sum(1)

    report = stabdeq.check(V, dim=2, claims=["zero"], proof=tmp_path / "p.json", **QUICK)
    assert report["zero"].verdict.name == "PROVED"
    reason = "not in the proof file: the checker's bounds leave [(0.0, 0.0), (0.0, 0.0)] open, too small to halve."
    assert report.skipped[0].reason == reason


# -- the list of operations is the function

OPERATIONS = {
    "arithmetic": lambda z: (z * 3 - z / 7 + 0.1 * z**3 - z.square() / (2 + z**2)).sum(1) + 2 / (3 + z[:, 0]) ** 2,
    "exponentials": lambda z: (z.exp() + z.sigmoid() + z.expm1() * z.tanh() + z.atan()).sum(1),
    "logarithms": lambda z: ((z + 3).log() + z.square().log1p() + (z + 3).sqrt() + (z + 3).rsqrt()).sum(1),
    "powers": lambda z: ((z**2 + 1).pow(1.5) + (z**2 + 1).pow(-2.5)).sum(1),
    "waves": lambda z: (z.sin() * z.cos() + (z / 4).tan()).sum(1),
    "kinks": lambda z: (z.relu() + z.abs() + torch.nn.functional.leaky_relu(z, 0.1) + z.clamp(-0.5, 0.3)).sum(1),
    "extremes": lambda z: z.amax(1) + torch.minimum(z[:, 0], z[:, 1] ** 2) + z.norm(dim=1) + z.mean(1),
    "network": lambda z: torch.tanh(torch.addmm(WEIGHT[:, 0], z, WEIGHT.mT)) @ WEIGHT.sum(1),
}


def value_of(function: Any, inputs: list[float]) -> list[float]:
    """Return the results of a list of operations, in floating point."""
    plain = {"square": lambda u: u * u, "inverse": lambda u: 1 / u, "relu": lambda u: max(u, 0.0), "abs": abs}
    plain |= {"sigmoid": lambda u: 1 / (1 + math.exp(-u))}
    known = [1.0, *inputs]
    for name, *rest in function["code"]:
        if name == "affine":
            sides = [known[i] for i in rest[0]]
            known += [math.fsum(float.fromhex(a) * b for a, b in zip(row, sides, strict=True)) for row in rest[1]]
        else:
            known.append(
                known[rest[0]] * known[rest[1]]
                if name == "mul"
                else (plain.get(name) or getattr(math, name))(known[rest[0]])
            )
    return [known[i] for i in function["results"]]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_and_their_bounds(name):
    """The list of operations gives what the function does; on boxes all its values and slopes lie between the bounds."""
    states = torch.rand(64, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2 - 1
    function = program(read(OPERATIONS[name], states), 2)
    for state, value in zip(states.tolist(), OPERATIONS[name](states).tolist(), strict=True):
        assert value_of(function, state) == pytest.approx([value], rel=1e-12, abs=1e-12)
    code, draw = programs.compiled(function, 2, name), random.Random(0)
    for _ in range(60):
        box = [
            tuple(sorted((a, a + draw.choice([1e-3, 0.1, 1.0]) * draw.random())))
            for a in (draw.uniform(-1, 0.5) for _ in "ab")
        ]
        middle, way = [boxes.middle(side) for side in box], [draw.uniform(-1, 1), 1.0]
        z = boxes.coordinates(box, middle)
        (value,), (along,) = programs.run(code, z, [jets.constant(one, z[0]) for one in way])
        for _ in range(8):
            state = [draw.uniform(*side) for side in box]
            exact = boxes.coordinates([(one, one) for one in state], state)
            (at,), (slope,) = programs.run(code, exact, [jets.constant(one, exact[0]) for one in way])
            for jet, found in ((value, at.r), (along, slope.r)):
                mean = jet.c + sum(s * (arb(b) - arb(a)) for s, a, b in zip(jet.s, middle, state, strict=True))
                assert found.overlaps(jet.r)
                assert not mean.is_finite() or found.overlaps(mean)
                assert jet.r.is_finite()


def test_comparisons_are_not_written():
    states = torch.rand(8, 2, dtype=torch.float64)
    with pytest.raises(UnwrittenError, match="gt"):
        program(read(lambda z: torch.where(z > 0, z, 2 * z).sum(1), states), 2)


def test_too_many_constants_are_not_written():
    states = torch.rand(8, 2, dtype=torch.float64)
    with pytest.raises(UnwrittenError, match="it computes with 50002 constants"):
        program(read(lambda z: (z @ torch.ones(2, 25001, dtype=torch.float64)).sum(1), states), 2)


# -- altered files


@pytest.fixture(scope="module")
def proof(tmp_path_factory) -> Any:
    path = tmp_path_factory.mktemp("proof") / "p.json"
    stated = {"claims": ["positive", "decrease"], "inner_radius": 0.25, "sublevel": 0.75, "radius": 1.5}
    assert len(proved(path, network, sink, **stated)) == 2
    return json.loads(path.read_text())


def verdict(proof: Any) -> str:
    """Return why the proof fails, of its claims as they are, whatever their words; empty where it does not."""
    claims = [claim | {"words": ""} for claim in proof["claims"]]
    try:
        check(json.dumps(proof | {"claims": claims}).encode())
    except (Failure, Unreadable) as error:
        return str(error)
    return ""


def places(group: Any, test: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to all items of a JSON object of which ``test`` holds."""
    found = [path] if test(group) else []
    listed = group.items() if isinstance(group, dict) else enumerate(group) if isinstance(group, list) else ()
    return found + [one for key, item in listed for one in places(item, test, (*path, key))]


def replaced(group: Any, path: tuple[Any, ...], change: Any) -> Any:
    made = inner = copy.deepcopy(group)
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = change(inner[path[-1]])
    return made


def altered(proof: Any, draw: random.Random) -> Any:
    """Return the proof with one thing changed at random."""

    def is_number(item: Any) -> bool:
        return isinstance(item, str) and item.lstrip("-").startswith("0x")

    def other_digit(text: str) -> str:
        spots = [i for i, mark in enumerate(text) if mark in "0123456789abcdef" and i > text.index("x")]
        spot = draw.choice(spots)
        return text[:spot] + draw.choice("0123456789" if "p" in text[:spot] else "0123456789abcdef") + text[spot + 1 :]

    def cut(text: str) -> str:
        spot = draw.randrange(len(text))
        return text[:spot] + draw.choice(["", ".", "c", "0", "1", text[spot] * 2]) + text[spot + 1 :]

    scale = draw.choice([0.0, 0.5, 0.9, 1.1, 2.0, -1.0])
    bodies = {key: proof[key] for key in ("centre", "functions", "claims")}
    kinds = {
        "digit": (is_number, other_digit),
        "scale": (is_number, lambda text: (float.fromhex(text) * scale).hex()),
        "not finite": (is_number, lambda text: draw.choice(["nan", "inf", "-inf", "0x", "", None, 1.0])),
        "tree": (lambda item: isinstance(item, str) and set(item) <= set(".c01") and len(item) > 0, cut),
        "register": (lambda item: type(item) is int, lambda place: place + draw.choice([-3, -1, 1, 2, -9])),
        "operation": (lambda item: item in ("mul", *jets.FUNCTIONS), lambda _: draw.choice([*jets.FUNCTIONS, "mul"])),
        "relation": (lambda item: item in ("<", "<=", ">", ">="), lambda _: draw.choice(["<", "<=", ">", ">=", "="])),
        "quantity": (
            lambda item: item in ("V", "V-dot", "|z - c|^2"),
            lambda _: draw.choice(["V", "V-dot", "f", "V(z+)"]),
        ),
        "fewer": (lambda item: isinstance(item, list) and len(item) > 0, lambda item: item[1:]),
        "centre": (lambda item: type(item) is bool, lambda spared: not spared),
    }
    test, change = kinds[draw.choice(list(kinds))]
    found = places(bodies, test)
    return replaced(proof, draw.choice(found), change) if found else proof


def is_refuted(proof: Any, draw: random.Random) -> bool:
    """Return whether a state is met at which a claim of the proof clearly fails, in floating point."""
    functions, centre = proof["functions"], [float.fromhex(one) for one in proof["centre"]]

    def quantity(name: str, z: list[float]) -> float:
        if name == "|z - c|^2":
            return sum((a - b) ** 2 for a, b in zip(z, centre, strict=True))
        if name == "V-dot":
            ways = value_of(functions["f"], z)
            ends = [
                value_of(functions["V"], [a + s * b for a, b in zip(z, ways, strict=True)])[0] for s in (1e-6, -1e-6)
            ]
            return (ends[0] - ends[1]) / 2e-6
        return value_of(functions[name], z)[0]

    def excess(one: Any, z: list[float]) -> float:
        terms, relation, bound = one
        left = sum(float.fromhex(factor) * quantity(name, z) for factor, name in terms) - float.fromhex(bound)
        return left if relation.startswith("<") else -left

    for claim in proof["claims"]:
        sides = [[float.fromhex(end) for end in side] for side in claim["box"]]
        for _ in range(100):
            z = [draw.uniform(*side) for side in sides]
            if all(excess(one, z) <= 0 for one in claim["if"]) and any(excess(one, z) > 1e-5 for one in claim["then"]):
                return True
    return False


def altered_files(proof: Any, count: int, seed: int) -> int:
    """Alter the proof ``count`` times; return how often it stays valid, of claims that no state refutes."""
    draw, valid = random.Random(seed), 0
    for _ in range(count):
        other = altered(proof, draw)
        if not verdict(other):
            assert not is_refuted(other, draw), other
            valid += 1
    return valid


def test_altered_files_prove_nothing_false(proof):
    assert altered_files(proof, 120, 0) < 60


def test_a_clearly_false_claim_is_seen_as_such(proof):
    """The test above can fail: states refute what a checker that believes all would call valid."""
    false = replaced(proof, ("claims", 1, "then", 0, 1), lambda _: ">")
    assert is_refuted(false, random.Random(0))


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        (("version",), lambda _: 2, "version: expected 1"),
        (("claims", 1, "tree"), lambda tree: tree[:-1], "ends before its boxes cover the box"),
        (("claims", 1, "tree"), lambda tree: tree + ".", "unexpected '.'"),
        (("claims", 1, "tree"), lambda tree: tree.replace(".", "2", 1), "unexpected '2'"),
        (("claims", 1, "tree"), lambda _: ".", "not shown on the box"),
        (("claims", 1, "tree"), lambda _: "c", "not shown on the box"),
        (("claims", 1, "if", 1, 2), lambda _: (16.0).hex(), ""),  # the level
        (("claims", 1, "if", 2, 2), lambda _: (0.0).hex(), "not shown on the box"),  # the inner radius
        (("claims", 1, "box", 0), lambda side: side[::-1], "expected low <= high"),
        (("functions", "V", "code", 0, 1), lambda _: 99, "expected an integer from 0 to 2"),
        (("functions", "f", "results"), lambda results: results[:1], "expected 2 results"),
        (("about",), lambda about: about.replace("not ", ""), "about: expected"),
        (("claims", 0, "then", 0, 0, 0, 1), lambda _: "W", "unknown quantity 'W'"),
        (("claims",), lambda _: [], "there are none"),
    ],
)
def test_each_alteration_is_named(proof, path, change, words):
    found = verdict(replaced(proof, path, change))
    assert words in found if words else not found


def test_other_words_are_not_believed(proof):
    other = replaced(proof, ("claims", 0, "words"), lambda words: words.replace("V > 0.0", "V > 1.0"))
    with pytest.raises(Failure, match="expected the words"):
        check(json.dumps(other).encode())


def test_nothing_is_shown_where_a_function_is_undefined():
    """log(z) has the slope 1 / z for z < 0 too, and max(log(z), 0) is no number there."""
    box = [[(-2.0).hex(), (-1.0).hex()]]
    for code in ([["log", 1]], [["log", 1], ["relu", 2]], [["sqrt", 1], ["square", 2]], [["inverse", 0], ["log", 1]]):
        function = {"code": code, "results": [1 + len(code)]}
        for name, relation, bound in (("V-dot", "<", 1e9), ("V", "<", 1e9), ("V", ">", -1e9), ("V-dot", ">", -1e9)):
            claim = {
                "words": "",
                "box": box,
                "if": [],
                "then": [[[["0x1.0000000000000p+0", name]], relation, bound.hex()]],
            }
            claim |= {"spares_centre": False, "tree": "."}
            identity = {"code": [["mul", 0, 1]], "results": [2]}
            group = {"version": 1, "kind": "boxes", "about": boxes.ABOUT, "source": {}, "centre": [(0.0).hex()]}
            group |= {"functions": {"V": function, "f": identity}, "claims": [claim]}
            assert "not shown on the box" in verdict(group)
