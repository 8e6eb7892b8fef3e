"""Models whose gradients may lead where the model's own do not: its relatives, and a stranger that learnt its answers."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from analysis.checks.robustness.target import Target
from stabdeq.attacks.intermediate import Unrolled
from stabdeq.attacks.threat_model import Classifier
from stabdeq.model import StabilisedDEQ

EPOCHS = 60
UNROLLED = 5


def rescaled(target: Target) -> Classifier:
    """Return the model with its logits divided by their own spread, as a constant, so that no softmax saturates."""

    def classifier(x: Tensor) -> Tensor:
        logits = target(x)
        spread = logits.detach().std(1, keepdim=True)
        return logits / torch.where(spread > 0, spread, 1)

    return classifier


def unrolled(target: Target) -> Classifier:
    """Return the model with the gradient of a few more steps of its cell in place of its own."""
    return Unrolled(target.subject.model, tuple(target.subject.solution.z.shape[1:]), None, 1.0, UNROLLED)


def twin(target: Target) -> Classifier | None:
    """Return the same weights without the stability module, where that is another model than this one."""
    model = target.subject.model
    if not isinstance(model, StabilisedDEQ) or model.config.stability not in ("state", "residual"):
        return None
    return lambda x: model.head(model.solve(model.inject(x)).z)


def stranger(target: Target, eps: float) -> Classifier:
    """Return a small convolutional network that learnt the model's answers on the audited images and around them."""
    images, answers = target.images, target.predict(target.images)
    classes = int(max(int(answers.max()), int(target.labels.max()))) + 1
    generator = target.generator(9)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        network = nn.Sequential(
            nn.Conv2d(images.shape[1], 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.LazyLinear(classes),
        ).double()
        network(images[:1])
        optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
        for _ in range(EPOCHS):
            noise = torch.rand(images.shape, generator=generator, dtype=images.dtype)
            near = (images + eps * (2 * noise - 1)).clamp(0, 1)
            optimiser.zero_grad()
            functional.cross_entropy(network(near), answers).backward()
            optimiser.step()
    return network.eval().requires_grad_(False)
