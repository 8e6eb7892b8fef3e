"""The figures that the paper prints: Chu, Wei, Liu, Zhao and Miyatake, Lyapunov-stable deep equilibrium models, arXiv 2304.12707."""

from collections.abc import Mapping
from types import MappingProxyType

EPS = (2, 4, 6, 8)  # of the columns, in 255ths of a pixel
EPOCHS: Mapping[str, int] = MappingProxyType({"mnist": 10, "svhn": 40, "cifar10": 50, "cifar100": 50})  # section 5.2

_Row = tuple[float | None, tuple[float, ...], tuple[float, ...]]  # clean, I-FGSM and PGD, accuracy in %

# Table 1. The row of LyaDEQ under PGD on CIFAR100 is missing there.
_TABLE_1: dict[tuple[str, str], _Row] = {
    ("mnist", "deq"): (96.99, (50.24, 49.89, 49.67, 49.34), (45.98, 45.80, 45.47, 45.23)),
    ("mnist", "deq-orth"): (96.56, (29.98, 29.91, 29.60, 29.44), (29.94, 29.94, 29.71, 29.53)),
    ("mnist", "ibp-mondeq"): (99.29, (96.52, 96.38, 96.32, 96.27), (94.87, 94.80, 94.69, 94.57)),
    ("mnist", "lyadeq-noorth"): (97.10, (23.18, 23.28, 23.21, 23.25), (23.17, 23.26, 23.24, 23.23)),
    ("mnist", "lyadeq"): (96.59, (50.78, 50.60, 50.55, 50.43), (50.72, 50.54, 50.52, 50.35)),
    ("svhn", "deq"): (95.37, (68.09, 61.78, 56.77, 51.65), (67.06, 60.89, 56.38, 51.22)),
    ("svhn", "deq-orth"): (95.63, (67.30, 59.96, 54.27, 48.79), (66.74, 60.31, 55.59, 50.02)),
    ("svhn", "ibp-mondeq"): (91.06, (57.71, 55.71, 53.78, 51.58), (57.75, 55.74, 54.15, 52.04)),
    ("svhn", "lyadeq-noorth"): (95.28, (72.16, 72.08, 71.84, 71.42), (68.95, 67.88, 67.11, 65.60)),
    ("svhn", "lyadeq"): (95.21, (69.41, 69.01, 68.55, 67.81), (71.35, 71.23, 70.95, 70.47)),
    ("cifar10", "deq"): (87.71, (34.25, 23.00, 16.65, 12.36), (33.37, 22.87, 16.81, 11.12)),
    ("cifar10", "deq-orth"): (87.62, (35.46, 23.48, 16.91, 11.61), (32.67, 22.07, 15.92, 10.89)),
    ("cifar10", "ibp-mondeq"): (80.25, (25.87, 24.54, 23.59, 22.24), (27.59, 26.21, 25.04, 23.58)),
    ("cifar10", "lyadeq-noorth"): (87.80, (43.80, 43.99, 43.75, 43.45), (47.09, 46.94, 46.70, 46.12)),
    ("cifar10", "lyadeq"): (87.87, (47.38, 47.31, 46.71, 45.80), (45.04, 44.81, 44.50, 43.96)),
    ("cifar100", "deq"): (61.23, (15.62, 8.59, 5.94, 4.15), (11.85, 6.71, 4.47, 3.10)),
    ("cifar100", "deq-orth"): (61.41, (14.75, 8.13, 5.59, 3.85), (13.81, 7.70, 5.16, 3.39)),
    ("cifar100", "ibp-mondeq"): (44.78, (9.15, 8.32, 7.68, 7.04), (8.88, 8.21, 7.56, 7.04)),
    ("cifar100", "lyadeq-noorth"): (60.52, (22.20, 22.16, 21.77, 21.07), (20.25, 19.78, 19.10, 18.18)),
    ("cifar100", "lyadeq"): (61.30, (23.82, 23.76, 23.73, 23.35), ()),
}
_TABLE_2: dict[tuple[str, str], _Row] = {
    ("cifar10", "lyadeq-trades"): (None, (72.81, 72.68, 72.66, 72.42), (48.48, 48.39, 48.35, 48.33)),
    ("cifar10", "lyadeq-robust-data"): (None, (51.96, 51.78, 51.62, 51.51), (52.00, 51.85, 51.54, 51.63)),
    ("cifar10", "lyadeq-pgd-at"): (None, (60.46, 60.34, 60.18, 60.08), (60.43, 60.42, 60.41, 60.23)),
}
_TABLE_3 = {  # I-FGSM and PGD, at 8/255 alone
    "resnet56": (40.51, 36.58),
    "resnet56-trades": (63.43, 62.98),
    "vgg16": (37.94, 36.46),
    "vgg16-trades": (67.51, 67.09),
    "wrn-28-10": (37.08, 35.11),
    "wrn-28-10-trades": (74.58, 75.01),
}


def printed(data: str, system: str, attack: str, eps: int) -> float | None:
    """Return the accuracy in % that the paper prints, None where it prints none.

    ``eps`` is in 255ths of a pixel; 0 is the clean accuracy.
    """
    if data == "cifar10" and system in _TABLE_3:
        return dict(zip(("ifgsm", "pgd"), _TABLE_3[system], strict=True)).get(attack) if eps == 8 else None
    clean, ifgsm, pgd = (_TABLE_1 | _TABLE_2).get((data, system), (None, (), ()))
    curves = {"ifgsm": ifgsm, "pgd": pgd}
    if attack not in curves:
        return None
    return clean if eps == 0 else dict(zip(EPS, curves[attack], strict=False)).get(eps)
