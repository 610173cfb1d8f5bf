"""Reads the project's own sample items for lm-evaluation-harness tasks.

The YAML files of this folder name `load` through `custom_dataset: !function sample_data.load`. The items lie in ../samples, found
from this file's own place, so the harness may be started anywhere. No network and no cache is used.
"""

import json
from pathlib import Path

import datasets

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


def load(sample_file: str, **_ignored: object) -> datasets.DatasetDict:
    """Returns the items of one file as split `test`.

    Args:
        sample_file: a file name in ../samples with one JSON object a line.
        **_ignored: the task's metadata and the model's arguments, which the harness passes to every loader.
    """
    with (SAMPLES / sample_file).open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines if line.strip()]
    return datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})
