"""What `test_parallel.py` starts with torchrun: every case in one group of processes. Arguments: folder, then VARIANT:KIND."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from dtrnet_train.parallel import end
from support import trainer

SHORT = {"train__steps": 6, "train__log_every": 1}


def main() -> None:
    """Trains each case into a folder of its name."""
    torch.set_num_threads(1)
    folder, cases = Path(sys.argv[1]), [word.split(":") for word in sys.argv[2:]]
    for variant, kind in cases:
        trainer(folder, variant, f"{variant}-two", show=True, train__parallel=kind, **SHORT).run()
    end()


if __name__ == "__main__":
    main()
