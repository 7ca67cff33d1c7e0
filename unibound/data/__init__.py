"""Data sets by name and by file, their binarization, and the batches a run is trained on."""

from unibound.data.binarization import Binarization, batches, binarize, fit, sample_bits, scale
from unibound.data.files import File, is_path, read_npz
from unibound.data.lengths import with_lengths
from unibound.data.rows import Rows
from unibound.data.splits import DataSet, Splits

__all__ = [
    "Binarization",
    "DataSet",
    "File",
    "Rows",
    "Splits",
    "batches",
    "binarize",
    "fit",
    "is_path",
    "read_npz",
    "sample_bits",
    "scale",
    "with_lengths",
]
