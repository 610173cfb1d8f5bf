"""A suite for tests of several servers: tasks whose items share a few-shot prompt each, made of the project's sample items.

The folder gets task files, a suite file and the rows; it needs no network. Each task has examples of its own, drawn with the task's seed.
"""

from __future__ import annotations

import json
from pathlib import Path

SAMPLES = Path(__file__).resolve().parents[2] / "eval" / "src" / "dtrnet_eval" / "data" / "samples"
SHOTS = 6

LOADER = """import json
from pathlib import Path

import datasets


def load(rows: str, **_ignored):
    read = lambda split: [json.loads(line) for line in (Path(__file__).parent / f"{rows}-{split}.jsonl").read_text().splitlines()]
    return datasets.DatasetDict({split: datasets.Dataset.from_list(read(split)) for split in ("train", "test")})
"""
TASK = """task: family_{n}
custom_dataset: !function family_data.load
dataset_kwargs:
  rows: rows-{n}
fewshot_split: train
test_split: test
description: "These are questions of kind {n} and their answers.\\n\\n"
num_fewshot: {shots}
fewshot_config:
  sampler: {sampler}
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: label
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""
TEXT = """task: family_text_{n}
custom_dataset: !function family_data.load
dataset_kwargs:
  rows: rows-{n}
fewshot_split: train
test_split: test
description: "These are texts of kind {n}.\\n\\n"
num_fewshot: {shots}
fewshot_config:
  sampler: {sampler}
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{choices[label]}}}}"
generation_kwargs:
  until: ["\\n"]
  max_gen_toks: 8
  do_sample: false
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
metadata:
  version: 1.0
"""


def write(folder: Path, tasks: int = 8, texts: int = 2, items: int = 8, sampler: str = "first_n") -> Path:
    """Makes the folder's files; the suite's.

    Args:
        folder: to write into.
        tasks: how many with questions and four answers.
        texts: how many of them are asked for generated answers as well.
        items: of each.
        sampler: of the few-shot examples: first_n (all items share them) or default (drawn anew, in the order of the items).
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in (SAMPLES / "fourway.jsonl").read_text().splitlines()]
    (folder / "family_data.py").write_text(LOADER)
    for n in range(tasks):
        moved = rows[5 * n % len(rows) :] + rows[: 5 * n % len(rows)]
        for split, part in (("train", moved[items : items + 2 * SHOTS]), ("test", moved[:items])):
            (folder / f"rows-{n}-{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        (folder / f"family_{n}.yaml").write_text(TASK.format(n=n, shots=SHOTS, sampler=sampler))
        if n < texts:
            (folder / f"family_text_{n}.yaml").write_text(TEXT.format(n=n, shots=SHOTS, sampler=sampler))
    names, generated = (", ".join(f"{stem}_{n}" for n in range(count)) for stem, count in (("family", tasks), ("family_text", texts)))
    suite = folder / "families.yaml"
    runs = f"  - name: questions\n    tasks: [{names}]\n  - name: texts\n    tasks: [{generated}]\n"
    suite.write_text(f"about: Few-shot prompts that items share.\ninclude: .\nruns:\n{runs}")
    return suite
