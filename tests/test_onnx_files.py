"""Functions from ONNX files: each operation, files of another hand, V and dynamics of ``stabdeq check``, and files that must be refused."""

import base64
import math
import os
import struct
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from command_runs import run
from onnx_models import CASES, EXPECTED, W, attribute, graph, info, node, saved, state_of

import stabdeq
from analysis.proofs.intervals.graph import FunctionEnclosure
from analysis.proofs.intervals.interval import Interval
from analysis.proofs.tracing import read
from analysis.shards.work import Work, digests
from analysis.user_function.function import load_function
from analysis.user_function.onnx_files import load_onnx
from analysis.user_function.onnx_files.messages import AttributeMessage, Entry, NodeMessage, TensorMessage
from stabdeq.errors import ConfigError

# Made by onnx.helper 1.23: LeakyRelu(x W^T + b), summed, times 1.5; W in float_data, b in float16, 1.5 in bfloat16.
FOREIGN = base64.b85decode(
    "2nZ4jZ*FdQE@)+JaAk5j#{vo-3ISpg0b?2kcWGp0ZXyIjVRLjU2?_#qZx{if0Rjpc3IReA141)0A_PNWb95>R3IcR*7y+OG0tzk)0eA`lR|)}R"
    "5&>u$1!ie-b95pEM`dkoDh&z-baG*Cb3zyapaB9h1axJ1bP6I00ca8dYa$6uWnpW1Qe|v)Dh~<;VQg?{VHM5H%srq10SYAw0c#2YVG;pzA_-Du"
    "WOZX@Q*~`B4+;otWo2+=X>D^D0iXc_3J?kba|#1OGcpnZc_IT%b!-v=XDTBI0|){T0U{X9%*;Ii006%L002M$0DwLK0D!+UGc!Lz0aq#z2m=rb"
    "DhGgYfan5%ctQbUDhdbz5C=K|0YU*`Dhmh!5D+Q?z<)vkLRu6G0eBJ*3JnMW5(x?e5&=#M0tf<P6bb=(5)TRu2mula3Ih@WP6`4D0YU@{01y!"
)
STATES = torch.tensor([[0.3, -1.2], [1.0, 2.0]], dtype=torch.float64)
QUADRATIC = graph([node("Mul", "x x", "s"), node("ReduceSum", "s a")], {"a": [1]}, (1, 2))
PENDULUM = graph(
    [
        node("Gather", "x first", "angle", axis=1),
        node("Gather", "x second", "speed", axis=1),
        node("Sin", "angle", "pull"),
        node("Neg", "pull", "push"),
        node("Sub", "push speed", "faster"),
        node("Concat", "speed faster", axis=1),
    ],
    {"first": [0], "second": [1]},
    (1, 2),
)


@pytest.mark.parametrize("name", CASES)
def test_operations_give_what_onnxruntime_gives(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    network = load_onnx(saved(tmp_path / "f.onnx", graph(case.nodes, case.constants, case.lengths), case.version))
    state = torch.tensor([state_of(case)], dtype=torch.float64)
    found = network(state.reshape(case.lengths))
    assert found.dtype == torch.float64 or name == "Shape"
    assert found[0].tolist() == pytest.approx(EXPECTED[name], rel=2e-6, abs=2e-6)


@pytest.mark.parametrize("name", CASES)
def test_every_operation_takes_a_batch(name: str, tmp_path: Path) -> None:
    """The files have a batch of 1; three states are computed as each alone, and as one graph of operations."""
    case = CASES[name]
    network = load_onnx(saved(tmp_path / "f.onnx", graph(case.nodes, case.constants, case.lengths), case.version))
    states = torch.tensor([[0.7 * scale * number for number in state_of(case)] for scale in (1, -1, 2)]).double()
    batch = states.reshape(3, *case.lengths[1:])
    together, alone = network(batch), torch.cat([network(state[None]) for state in batch])
    assert torch.allclose(together, alone, rtol=1e-14, atol=1e-14)
    if len(case.lengths) == 2:
        graph_of_one = read(network, states)
        assert torch.allclose(graph_of_one(states[1:2]), alone[1:2], rtol=1e-14)


def test_file_of_another_hand(tmp_path: Path) -> None:
    (tmp_path / "f.onnx").write_bytes(FOREIGN)
    network = load_onnx(tmp_path / "f.onnx")
    found = network(STATES)
    # onnxruntime computes it in float32.
    assert found[:, 0].tolist() == pytest.approx([1.7490002, 5.415], rel=1e-6)
    # By hand, with the float32 that the file holds: they are meant as they are.
    weights = torch.tensor([[0.1, -0.5], [2.0, 0.25], [-1.0, 0.7]]).double()
    slope = torch.tensor(0.1).double()
    hidden = STATES @ weights.T + torch.tensor([0.5, -0.25, 1.0]).double()
    expected = 1.5 * torch.where(hidden > 0, hidden, slope * hidden).sum(1)
    assert torch.allclose(found[:, 0], expected, rtol=1e-15, atol=0)


def test_numbers_that_are_left_out_are_those_of_float32(tmp_path: Path) -> None:
    """The default slope of LeakyRelu is the float32 next to 0.01."""
    network = load_onnx(saved(tmp_path / "f.onnx", graph([node("LeakyRelu")], lengths=(1, 1))))
    assert float(network(torch.tensor([[-1.0]]).double())) == -float(torch.tensor(0.01, dtype=torch.float32))


def test_softplus_is_not_cut_off(tmp_path: Path) -> None:
    """PyTorch's own is x beyond 20."""
    network = load_onnx(saved(tmp_path / "f.onnx", graph([node("Softplus")], lengths=(1, 1))))
    assert float(network(torch.tensor([[25.0]]).double())) - 25 == pytest.approx(math.exp(-25), rel=1e-3)


def test_clip_by_infinity_bounds_nothing(tmp_path: Path) -> None:
    """A graph with an infinite constant could not be proved of."""
    bounds = {"low": torch.tensor(-math.inf), "high": torch.tensor(1.0)}
    network = load_onnx(saved(tmp_path / "f.onnx", graph([node("Clip", "x low high")], bounds, (1, 2))))
    assert network(2 * STATES)[0].tolist() == pytest.approx([0.6, -2.4])
    read(network, STATES)


@pytest.mark.parametrize("lengths", [(1, 2), (None, 2), (None, None), (2,), (1, 1, 1, 2)], ids=str)
def test_lengths_of_the_input(lengths: tuple[int | None, ...], tmp_path: Path) -> None:
    made = graph([node("Tanh", "x", "t"), node("Flatten", "t", "f", axis=0), node("Identity", "f")], lengths=lengths)
    network = load_onnx(saved(tmp_path / "f.onnx", made))
    assert torch.equal(network(STATES), torch.tanh(STATES))
    assert network(STATES[:0]).shape == (0, 2)


def test_bounds_contain_the_values(tmp_path: Path) -> None:
    value = load_function(str(saved(tmp_path / "V.onnx", QUADRATIC)), 2, "value")
    low, high = torch.tensor([[0.5, -1.0]]).double(), torch.tensor([[1.0, 1.0]]).double()
    bounds = FunctionEnclosure(value, STATES)(Interval(low, high), 1).value
    assert (float(bounds.low), float(bounds.high)) == pytest.approx((0.25, 2.0), rel=1e-14)


def test_check_takes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    """V = |z|^2 proves nothing of a pendulum with friction but V > 0; V-dot >= 0 is found where it is."""
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "V.onnx", QUADRATIC)
    saved(tmp_path / "f.onnx", PENDULUM)
    claims = ("--claims", "zero,positive,equilibrium", "--require", "proved", "--samples", "256", "--starts", "2")
    assert run("check", "V.onnx", "--dim", "2", "--dynamics", "f.onnx", *claims) == 0
    assert capsys.readouterr().out.count("PROVED") >= 3
    assert run("check", "V.onnx", "--dim", "2", "--dynamics", "f.onnx", "--claims", "decrease", "--samples", "256") == 1


def test_controller_in_a_module(tmp_path: Path) -> None:
    """z' = u(z), u = -z from a file: V = |z|^2 decays at the rate 2, and so it is proved."""
    controller = stabdeq.load_onnx(saved(tmp_path / "u.onnx", graph([node("Neg")], lengths=(1, 2))))
    report = stabdeq.check(
        str(saved(tmp_path / "V.onnx", QUADRATIC)),
        lambda z: controller(z) * 1.0,
        dim=2,
        alpha=2.0,
        samples=256,
        starts=2,
    )
    assert report["decay"].verdict == "PROVED"


def test_two_inputs(tmp_path: Path) -> None:
    made = graph([node("Mul", "x u", "p"), node("Identity", "p")], lengths=(1, 2))
    made.input.append(info("u", [1, 2]))
    plant = load_onnx(saved(tmp_path / "plant.onnx", made))
    assert torch.equal(plant(STATES, 2 * STATES), 2 * STATES**2)
    with pytest.raises(ConfigError, match=r"takes 2 inputs, 'x', 'u'; got 1"):
        plant(STATES)


def test_data_in_another_file(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(b"\0" * 8 + struct.pack("<2d", 3.0, 4.0))
    found = load_onnx(saved(folder / "f.onnx", _outside("w.bin", offset="8")))(STATES)
    assert torch.equal(found, STATES * torch.tensor([3.0, 4.0]).double())


def test_the_hash_is_of_the_data_beside_the_file_too(tmp_path: Path) -> None:
    path = saved(tmp_path / "f.onnx", _outside("w.bin"))
    hashes = set()
    for weight in (3.0, 5.0):
        (tmp_path / "w.bin").write_bytes(struct.pack("<2d", weight, 4.0))
        hashes |= {load_onnx(path).sha256, digests(Work("check", str(path), {}))["subject"]}
    assert len(hashes) == 2
    whole = saved(tmp_path / "whole.onnx", graph([node("Mul", "x x")], lengths=(1, 2)))
    assert load_onnx(whole).sha256 == sha256(whole.read_bytes()).hexdigest()


def _outside(location: str, **entries: str) -> Any:
    made = graph([node("Mul", "x w")], lengths=(1, 2))
    entry = [Entry("location", location), *(Entry(key, value) for key, value in entries.items())]
    made.initializer.append(TensorMessage([2], 11, name="w", external_data=entry, data_location=1))
    return made


@pytest.mark.parametrize(
    ("location", "entries", "told"),
    [
        ("../secret.bin", {}, "expected a file in the folder of the ONNX file"),
        ("/etc/passwd", {}, "expected a file in the folder of the ONNX file"),
        ("link.bin", {}, "expected a file in the folder of the ONNX file"),
        ("", {}, "expected a file in the folder of the ONNX file"),
        ("none.bin", {}, "which is no file"),
        ("loop.bin", {}, "which is no file"),
        ("w.bin", {"offset": "1"}, "needs 16 bytes, got 16 from byte 1"),
        ("w.bin", {"offset": "-8"}, "needs 16 bytes, got 16 from byte -8"),
        ("w.bin", {"length": "8"}, "needs 16 bytes, got 8"),
        ("w.bin", {"offset": "x"}, "no whole number"),
    ],
)
def test_data_elsewhere_is_refused(location: str, entries: dict[str, str], told: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for path in (tmp_path / "secret.bin", folder / "w.bin"):
        path.write_bytes(struct.pack("<2d", 3.0, 4.0))
    os.symlink(tmp_path / "secret.bin", folder / "link.bin")
    os.symlink("loop.bin", folder / "loop.bin")
    with pytest.raises(ConfigError, match=told):
        load_onnx(saved(folder / "f.onnx", _outside(location, **entries)))


def _with(message: TensorMessage) -> Any:
    made = graph([node("Add", "x w")], lengths=(1, 2))
    made.initializer.append(message)
    return made


def _two_initialisers() -> Any:
    made = _with(TensorMessage([2], 11, double_data=[1.0, 2.0], name="w"))
    made.initializer.append(TensorMessage([2], 11, double_data=[3.0, 4.0], name="w"))
    return made


def _two_inputs() -> Any:
    made = graph([node("Relu")])
    made.input.append(info("x", [1, 2]))
    return made


TWICE = NodeMessage(["x"], ["y"], "n", "LeakyRelu", [attribute("alpha", 0.1), attribute("alpha", 0.2)])
TWO_PLACES = [Entry("location", "a.bin"), Entry("location", "b.bin")]
MANY = torch.tensor([2**13] * 2)
BAD_GRAPHS: dict[str, tuple[Any, str]] = {
    "unknown operation": (graph([node("Tanhh")]), r"node 'the_Tanhh' \(Tanhh\): unknown .* did you mean 'Tanh'\? Valid: Abs, "),
    "another domain": (graph([NodeMessage(["x"], ["y"], "n", "Relu", domain="com.example")]), "domain 'com.example'"),
    "unknown attribute": (graph([node("Relu", slope=0.5)]), r"not known here: .*'slope'"),
    "too few inputs": (graph([node("Add")]), "node 'the_Add' .*missing a required argument"),
    "input left out": (graph([node("Add", "x -")]), r"leaves out an input that it needs: its inputs are \['x', ''\]"),
    "cycle": (graph([node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b")]), "reads 'b', .*a cycle"),
    "missing initialiser": (graph([node("Mul", "x w")]), "reads 'w', .*an initialiser is missing"),
    "written twice": (graph([node("Relu"), node("Tanh")]), "writes a name twice: y"),
    "no output": (graph([node("Relu", "x", "z")]), "no node gives its output 'y'"),
    "wrong shape": (graph([node("MatMul", "x w"), ], {"w": [W, W]}), r"node 'the_MatMul' \(MatMul\): .*shape"),
    "shape from the state": (graph([node("Cast", "x", "i", to=7), node("Reshape", "x i")]), "constant as its input 1, got 'i'"),
    "random": (graph([node("Dropout", "x r t")], {"r": torch.tensor(0.5), "t": torch.tensor(True)}), "draws at random"),
    "batch statistics": (graph([node("BatchNormalization", "x w w w w", training_mode=1)], {"w": W}), "mode of inference"),
    "rounds": (graph([node("Cast", to=10)]), "rounds to float16"),
    "too large": (graph([node("ConstantOfShape", "s", "c"), node("Mul", "x c")], {"s": MANY}), "67108864 numbers; expected at most"),
    "graph as attribute": (graph([NodeMessage(["x"], ["y"], "n", "Relu", [AttributeMessage("body", type=5)])]), "ONNX's type 5"),
    "few numbers": (_with(TensorMessage([2], 11, double_data=[1.0], name="w")), "initialiser 'w' of shape .* needs 2 numbers, got 1"),
    "few bytes": (_with(TensorMessage([2], 11, raw_data=b"123", name="w")), "needs 16 bytes for 2 numbers of float64, got 3"),
    "huge shape": (_with(TensorMessage([2**40, 2**40], 1, raw_data=b"", name="w")), "got 0"),
    "negative shape": (_with(TensorMessage([-2], 1, raw_data=b"", name="w")), r"has the shape \[-2\]"),
    "text": (_with(TensorMessage([2], 8, name="w")), "type 8 of ONNX, which is none of float32"),
    "no int8": (_with(TensorMessage([1], 3, int32_data=[300], name="w")), "no int8"),
    "attribute twice": (graph([TWICE]), r"node 'n' \(LeakyRelu\): of its attributes the key 'alpha' stands twice"),
    "initialiser twice": (_two_initialisers(), "two initialisers have one name, among 'w', 'w'"),
    "input twice": (_two_inputs(), "two inputs have one name, among 'x', 'x'"),
    "two places": (_with(TensorMessage([2], 11, name="w", external_data=TWO_PLACES, data_location=1)), "'location' stands twice"),
    "unknown lengths": (graph([node("Relu")], lengths=(None, None, None)), "at most one length unknown"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_GRAPHS)
def test_bad_graphs_are_refused(name: str, tmp_path: Path) -> None:
    made, told = BAD_GRAPHS[name]
    with pytest.raises(ConfigError, match=told):
        load_onnx(saved(tmp_path / "f.onnx", made))(torch.tensor([W], dtype=torch.float64))


def test_other_bad_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "f.onnx"
    with pytest.raises(ConfigError, match="expected an ONNX file, found none"):
        load_onnx(path)
    for version in (6, 99):
        with pytest.raises(ConfigError, match=f"version {version} of the operations; expected 7 to"):
            load_onnx(saved(path, QUADRATIC, version))
    with pytest.raises(ConfigError, match="functions of its own"):
        load_onnx(saved(path, QUADRATIC, functions=[b"f"]))
    made = graph([node("Relu")])
    made.output.append(info("x", [1]))
    with pytest.raises(ConfigError, match="expected one output, got 2: 'y', 'x'"):
        load_onnx(saved(path, made))
    with pytest.raises(ConfigError, match=r"takes states of shape \(1, 2\) as 'x', got a batch \(2, 3\)"):
        load_onnx(saved(path, QUADRATIC))(torch.zeros(2, 3).double())
    with pytest.raises(ConfigError, match="must take states"):
        load_function(str(path), 3, "value")


def test_no_bytes_do_more_than_be_refused(tmp_path: Path) -> None:
    """A file cut short, or with a byte changed, is read as a model or refused with one line."""
    path = tmp_path / "f.onnx"
    generator = torch.Generator().manual_seed(0)
    changed = [FOREIGN[:length] for length in range(0, len(FOREIGN), 7)]
    for place in range(0, len(FOREIGN), 2):
        byte = int(torch.randint(256, (1,), generator=generator))
        changed.append(FOREIGN[:place] + bytes([byte]) + FOREIGN[place + 1 :])
    errors = []
    for content in [*changed, b"\xff" * 40, b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"PK\3\4"]:
        path.write_bytes(content)
        try:
            load_onnx(path)(STATES)
        except ConfigError as error:
            errors.append(str(error))
    assert len(errors) > len(changed) // 4
    assert not any("\n" in error for error in errors)
