"""Data sets of images as tensors, with splits that are the same at every call."""

from stabdeq.data.augmentation import augment
from stabdeq.data.batches import Split, batches, on_device, resident, to_unit
from stabdeq.data.robust import read_robust
from stabdeq.data.sets import DataSet, ReadData, load_data

__all__ = [
    "DataSet",
    "ReadData",
    "Split",
    "augment",
    "batches",
    "load_data",
    "on_device",
    "read_robust",
    "resident",
    "to_unit",
]
