"""Mutated proofs, and a judge of what they claim that shares nothing with the checker: floating point, with the library's own code.

``python tests/proof_mutations.py`` makes and judges 2000 of them.
"""

import base64
import copy
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from analysis.certify import certify
from analysis.measure.subject import prepare
from analysis.proofs.cells.decay import Kind, smallest_theta
from analysis.proofs.cells.gain import smallest_gain
from analysis.proofs.cells.l2_radii import ends_of
from analysis.proofs.cells.linf_margins import linf_margins
from analysis.proofs.cells.network import forms_of
from stabdeq.cells import ReluCell
from stabdeq.checker.door import check
from stabdeq.checker.reading import Failure, Unreadable
from stabdeq.checkpoint import Checkpoint, load, save_checkpoint
from stabdeq.config import DataConfig, LyapunovConfig, ModelConfig
from stabdeq.lyapunov import proved_rate
from stabdeq.model import StabilisedDEQ

SHAPE, CLASSES, COUNT = (1, 4, 4), 3, 4
TOLERANCE = 1e-9  # of the judge's floating point, relative
MODELS: dict[str, dict[str, Any]] = {
    "certified": {"cell": "certified", "stability": "anchored", "head": "orthogonal"},
    "lipschitz": {"cell": "certified", "backbone": "lipschitz-fcn"},
    "convolution": {"cell": "certified", "backbone": "lipschitz-cnn"},
    "interval": {"cell": "interval"},
    "batchnorm": {"cell": "batchnorm", "head": "orthogonal-direct"},
}


@dataclass
class Proved:
    """A small checkpoint's bytes, the text of its proof, and the model."""

    checkpoint: bytes
    text: str
    model: StabilisedDEQ
    report: dict[str, Any]


def save_model(folder: Path, class_names: tuple[str, ...] = ("a", "b", "c"), **options: Any) -> Path:
    """Write an untrained model of few numbers, in which every tensor counts."""
    common = {"image_shape": SHAPE, "classes": CLASSES, "mean": (0.4,), "std": (0.3,), "state_dim": 6}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        lyapunov = LyapunovConfig(hidden=5, eta=1.0)
        model = StabilisedDEQ(ModelConfig(**common | {"lyapunov": lyapunov} | options)).eval()  # pyrefly: ignore
        with torch.no_grad():
            for name, tensor in model.state_dict().items():
                if name.startswith("cell"):
                    tensor.add_(0.05 * torch.rand_like(tensor))
                if name.startswith("lyapunov"):
                    tensor.mul_(0.3)
    path = folder / "checkpoint.safetensors"
    save_checkpoint(path, Checkpoint(model=model, data=DataConfig(), class_names=class_names, seed=0, epoch=0))
    return path


def sample_images(count: int = COUNT, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    """Return images of whole levels, (count, C, H, W), float64."""
    levels = torch.randint(0, 256, (count, *shape), generator=torch.Generator().manual_seed(1))
    return levels.double() / 255


def prove(folder: Path, **options: Any) -> Proved:
    """Return the proof that ``certify`` writes of an untrained model."""
    path, file = save_model(folder, **options), folder / "proof.json"
    images = sample_images(shape=options.get("image_shape", SHAPE))
    labels = load(path)(images.float()).argmax(1)
    labels[0] = (labels[0] + 1) % CLASSES  # one is misclassified
    report = certify(path, images, labels, proof=file)
    return Proved(path.read_bytes(), file.read_text(), load(path).double(), report.certificates["proof"])


def leaves(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the ways to all that is no object or list."""
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*way, key))
    else:
        yield way


def containers(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the ways to all objects and lists that hold something."""
    if isinstance(value, dict | list) and value:
        yield way
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from containers(item, (*way, key))


def at(value: Any, way: tuple[Any, ...]) -> Any:
    for key in way:
        value = value[key]
    return value


def put(value: Any, way: tuple[Any, ...], item: Any) -> None:
    at(value, way[:-1])[way[-1]] = item


class Mutation:
    """One change of a proof, drawn by ``draw``; each method makes one kind."""

    def __init__(self, proof: dict[str, Any], draw: random.Random) -> None:
        self.proof, self.draw = proof, draw
        self.ways = list(leaves(proof))
        self.numbers = [way for way in self.ways if str(at(proof, way)).lstrip("-").startswith("0x")]

    def _number(self, change: Callable[[str], str]) -> None:
        # By claim first, so that images with many numbers do not hide the rest.
        groups = sorted({way[:3] for way in self.numbers}, key=str)
        group = self.draw.choice(groups)
        way = self.draw.choice([way for way in self.numbers if way[:3] == group])
        put(self.proof, way, change(at(self.proof, way)))

    def digit(self) -> None:
        def change(text: str) -> str:
            places = [
                i for i, letter in enumerate(text.split("p")[0]) if letter in "0123456789abcdef" and i > text.index("x")
            ]
            i = self.draw.choice(places)
            return text[:i] + self.draw.choice("0123456789abcdef") + text[i + 1 :]

        self._number(change)

    def exponent(self) -> None:
        self._number(lambda text: (float.fromhex(text) * 2.0 ** self.draw.choice((-9, -1, 1, 9))).hex())

    def sign(self) -> None:
        self._number(lambda text: (-float.fromhex(text)).hex())

    def nudge(self) -> None:
        self._number(
            lambda text: (
                float.fromhex(text) * (1 + self.draw.choice((-1, 1)) * 10 ** self.draw.uniform(-15, -1))
            ).hex()
        )

    def no_number(self) -> None:
        self._number(
            lambda text: self.draw.choice(("nan", "inf", "-inf", "0x0.0p+0", "0x1.8", "1.5", "", "0x1.0p+9999"))
        )

    def dropped(self) -> None:
        way = self.draw.choice(list(containers(self.proof)))
        group = at(self.proof, way)
        del group[self.draw.choice(list(group) if isinstance(group, dict) else range(len(group)))]

    def doubled(self) -> None:
        group = at(
            self.proof,
            self.draw.choice([way for way in containers(self.proof) if isinstance(at(self.proof, way), list)]),
        )
        group.insert(self.draw.randrange(len(group) + 1), copy.deepcopy(self.draw.choice(group)))

    def swapped(self) -> None:
        groups = list(containers(self.proof))
        one = self.draw.choice(groups)
        other = self.draw.choice([way for way in groups if len(at(self.proof, way)) == len(at(self.proof, one))])
        if one and other and one[: len(other)] != other and other[: len(one)] != one:
            first, second = at(self.proof, one), at(self.proof, other)
            put(self.proof, one, second)
            put(self.proof, other, first)
        else:
            self.digit()

    def neighbours(self) -> None:
        group = at(
            self.proof,
            self.draw.choice([way for way in containers(self.proof) if isinstance(at(self.proof, way), list)]),
        )
        i = self.draw.randrange(len(group))
        group[i - 1], group[i] = group[i], group[i - 1]

    def hash(self) -> None:
        text, i = self.proof["sha256"], self.draw.randrange(64)
        self.proof["sha256"] = text[:i] + self.draw.choice("0123456789abcdef") + text[i + 1 :]

    def pixel(self) -> None:
        levels = bytearray(base64.b64decode(self.proof["images"]["pixels"]))
        levels[self.draw.randrange(len(levels))] = self.draw.randrange(256)
        self.proof["images"]["pixels"] = base64.b64encode(bytes(levels)).decode()

    def label(self) -> None:
        labels = self.proof["images"]["labels"]
        labels[self.draw.randrange(len(labels))] = self.draw.randrange(-1, CLASSES + 1)

    def radius(self) -> None:
        for claim in self.proof["claims"]:
            if claim["claim"] == "radius":
                entry = self.draw.choice(claim["radii"])
                entry[2] = (float.fromhex(entry[2]) * (1 + 10 ** self.draw.uniform(-12, 1))).hex()

    def integer(self) -> None:
        way = self.draw.choice([way for way in self.ways if type(at(self.proof, way)) is int])
        put(self.proof, way, at(self.proof, way) + self.draw.choice((-1, 1, 2, 0.0, 10**30)))

    def word(self) -> None:
        way = self.draw.choice([way for way in self.ways if way[-1] in ("words", "symbols", "about", "claim", "kind")])
        text = at(self.proof, way)
        i = self.draw.randrange(len(text))
        put(self.proof, way, text[:i] + self.draw.choice("0123456789 aex") + text[i + 1 :])

    def key(self) -> None:
        group = at(
            self.proof,
            self.draw.choice([way for way in containers(self.proof) if isinstance(at(self.proof, way), dict)]),
        )
        group["further"] = 0


KINDS = [name for name in vars(Mutation) if not name.startswith("_")]


def mutated(text: str, seed: int) -> tuple[str, str]:
    """Return the kind and the text of a mutation of the proof ``text``."""
    draw = random.Random(seed)
    proof, kind = json.loads(text), draw.choice([*KINDS, "truncated"])
    if kind == "truncated":
        return kind, text[: draw.randrange(len(text))]
    getattr(Mutation(proof, draw), kind)()
    return kind, json.dumps(proof)


class Judge:
    """Says of a proof, VALID by the checker, whether its claims are true, to rounding, by any multipliers that it knows of."""

    def __init__(self, proved: Proved) -> None:
        self.model, self.original = proved.model, json.loads(proved.text)
        self.network, self.equation, _ = forms_of(self.model.cell)

    def false_claims(self, text: str) -> list[str]:
        """Return what the proof ``text`` claims, and is not so."""
        proof = json.loads(text)
        known = {claim["claim"]: claim for claim in self.original["claims"]}
        with torch.no_grad():
            return [
                claim["claim"]
                for claim in proof["claims"]
                if claim != known[claim["claim"]] or proof["images"] != self.original["images"]
                if not getattr(self, claim["claim"])(claim, known[claim["claim"]], proof["images"])
            ]

    def gain(self, claim: Any, known: Any, images: Any) -> bool:
        return self._gain(claim, known, self.equation.output.centre, self.equation.injection.centre)

    def _gain(self, claim: Any, known: Any, output: Tensor, injection: Tensor) -> bool:
        return value(claim["gain"]) >= self._least(claim, known, output, injection) * (1 - TOLERANCE)

    def _least(self, claim: Any, known: Any, output: Tensor, injection: Tensor) -> float:
        both = [tensor(proof["multiplier"]) for proof in (claim, known)]
        return min(float(smallest_gain(self.equation, output, injection, multiplier)) for multiplier in both)

    def contraction(self, claim: Any, known: Any, images: Any) -> bool:
        return self._theta(claim, known, "map") <= value(claim["rate"]) ** 2 * (1 + TOLERANCE)

    def stability(self, claim: Any, known: Any, images: Any) -> bool:
        return self._theta(claim, known, "flow") <= -2 * value(claim["rate"]) * (1 - TOLERANCE)

    def _theta(self, claim: Any, known: Any, kind: Kind) -> float:
        norm = torch.zeros(len(claim["norm"]), len(claim["norm"]), dtype=torch.float64)
        for i, row in enumerate(claim["norm"]):
            norm[i, : i + 1] = norm[: i + 1, i] = tensor(row)
        network = self.network if kind == "map" else self.network.flow()
        return min(smallest_theta(network, norm, tensor(proof["multiplier"]), kind) for proof in (claim, known))

    def lyapunov(self, claim: Any, known: Any, images: Any) -> bool:
        assert isinstance(self.model.cell, ReluCell)
        assert self.model.lyapunov is not None
        return value(claim["alpha"]) <= float(proved_rate(self.model.lyapunov, self.model.cell.rates())) + TOLERANCE

    def radius(self, claim: Any, known: Any, images: Any) -> bool:
        pixels, labels = decoded(images)
        subject = prepare(self.model, pixels, labels)
        logits = self.model.readout(subject.solution.z)
        ends = ends_of(self.model)
        matrix, c = ends.extractor.matrix, ends.extractor.lipschitz
        injection = self.equation.injection.centre
        injection = c * injection if matrix is None else injection @ matrix.centre
        gains = {
            tuple(sorted(entry["classes"])): self._least(
                entry,
                entry,
                (ends.readout.centre[entry["classes"][0]] - ends.readout.centre[entry["classes"][1]])[None]
                @ self.equation.output.centre,
                injection,
            )
            for entry in known["pairs"]
        }
        correct = []
        for image, y, reach in claim["radii"]:
            others = [j for j in range(CLASSES) if j != y]
            least = min(float(logits[image, y] - logits[image, j]) / gains[min(y, j), max(y, j)] for j in others)
            if value(reach) > least * (1 + TOLERANCE):
                return False
            correct += [value(reach)] if y == labels[image] else []
        return all(count == sum(reach >= value(eps) for reach in correct) for eps, count in claim["counts"])

    def linf(self, claim: Any, known: Any, images: Any) -> bool:
        pixels, labels = decoded(images)
        for entry in claim["at"]:
            chosen = [box[0] for box in entry["boxes"]]
            eps = value(entry["eps"])
            if not bool((linf_margins(self.model, pixels, labels, eps)[chosen] > 0).all()):
                return False
        return True


def value(text: str) -> float:
    return float.fromhex(text)


def tensor(texts: list[str]) -> Tensor:
    return torch.tensor([value(text) for text in texts], dtype=torch.float64)


def decoded(images: Any) -> tuple[Tensor, Tensor]:
    levels = torch.frombuffer(bytearray(base64.b64decode(images["pixels"])), dtype=torch.uint8)
    return levels.double().reshape(-1, *SHAPE) / 255, torch.tensor(images["labels"])


def outcomes(proved: Proved, seeds: range) -> tuple[Counter[str], list[str]]:
    """Return how many mutations ended how, by kind, and those that are VALID and claim what is not so."""
    judge, counted, wrong = Judge(proved), Counter(), []
    for seed in seeds:
        kind, text = mutated(proved.text, seed)
        try:
            check(text.encode(), proved.checkpoint)
        except Failure:
            ending = "invalid"
        except Unreadable:
            ending = "unreadable"
        else:
            ending = "same" if text == json.dumps(json.loads(proved.text)) else "still proves"
            false = judge.false_claims(text)
            wrong += [f"seed {seed}, {kind}: {', '.join(false)}"] if false else []
        counted[f"{kind}: {ending}"] += 1
    return counted, wrong


def main() -> None:
    total = Counter()
    for name, options in MODELS.items():
        with TemporaryDirectory() as folder:
            proved = prove(Path(folder), **options)
        share = 2000 // len(MODELS) + 1
        counted, wrong = outcomes(proved, range(share))
        print(name, proved.report, "wrong:", wrong or "none")
        total += counted
    for line, count in sorted(total.items()):
        print(f"{count:5} {line}")
    endings = Counter()
    for line, count in total.items():
        endings[line.split(": ")[1]] += count
    print(dict(endings))


if __name__ == "__main__":
    main()
