"""Aligned sequences of letters, as categories."""

from pathlib import Path

import attrs
import numpy as np
import torch

from unibound import DataSet, Splits, UsageError, hookimpl
from unibound.support import integer_interval

PROTEIN = "-ACDEFGHIKLMNPQRSTVWY"


@attrs.frozen
class Alignment(DataSet):
    """A multiple alignment in FASTA: each letter a category, numbered as in `letters`.

    Every tenth sequence is for validation and every tenth to test, by their places in the file. Sequences that resemble
    each other lie in both: cluster them first if that matters. Insertions, small letters and dots in the format that
    some tools write, are left out.

    Args:
        file: the alignment.
        letters: the alphabet; the default is the gap and the twenty amino acids.

    Source: Pearson and Lipman, "Improved tools for biological sequence comparison" (1988),
    https://doi.org/10.1073/pnas.85.8.2444, for the format.
    """

    file: Path | None = None
    letters: str = attrs.field(default=PROTEIN, validator=attrs.validators.min_len(2))

    def load(self) -> Splits:
        """Read codes [N, V] from 0 to the number of letters less one."""
        if self.file is None:
            raise UsageError("alignment: which file? give it, as FASTA, by --data.file")
        if len(set(self.letters)) != len(self.letters):
            raise UsageError(f"alignment: a letter stands twice in letters {self.letters!r}; name each once")
        codes = torch.from_numpy(self._codes(self.file))
        parts = [codes[[i for i in range(len(codes)) if i % 10 in rest]] for rest in (range(8), (8,), (9,))]
        over = integer_interval(0, len(self.letters) - 1)
        return Splits(*parts, source=str(self.file), support=over)

    def _codes(self, path: Path) -> np.ndarray:
        try:
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read as text: {error}; give an alignment in FASTA") from error
        names, rows = [], list[str]()
        for line in text.splitlines():
            if line.startswith(">"):
                names.append(line[1:].split()[0] if line[1:].strip() else f"sequence {len(names) + 1}")
                rows.append("")
            elif line.strip():
                if not rows:
                    raise UsageError(f"{path}: does not begin with '>'; give an alignment in FASTA")
                rows[-1] += "".join(letter for letter in line.strip() if not (letter.islower() or letter == "."))
        if len(rows) < 10:
            raise UsageError(f"{path}: holds {len(rows)} sequences; ten at least are needed for three splits")
        for name, row in zip(names, rows, strict=True):
            if len(row) != len(rows[0]):
                raise UsageError(f"{path}: {name} has {len(row)} letters and the first {len(rows[0])}; align them")
            if unknown := sorted(set(row) - set(self.letters)):
                raise UsageError(
                    f"{path}: {name} has the letter {unknown[0]!r}, which is none of {self.letters!r}; "
                    "drop such sequences, or name all letters by --data.letters"
                )
        return np.array([[self.letters.index(letter) for letter in row] for row in rows], dtype=np.float32)


@hookimpl
def register_data_sets(register):
    register("alignment", Alignment)
