"""Reads benchmark rows from a folder for the tasks offline_*.

The environment variable LOCAL_EVAL_DATA names the folder. It holds one file of JSON lines for each benchmark (arc_easy.jsonl,
hellaswag.jsonl, ...), with the fields of the Hugging Face data sets that the harness's own tasks read. The project ships no rows.
"""

import json
import os
from pathlib import Path

import datasets

# Functions of the harness's own tasks: before 0.4.12 a task file can name only those of a file that lies beside it.
from lm_eval.tasks.hellaswag.utils import process_docs as hellaswag_docs  # noqa: F401
from lm_eval.tasks.wikitext.preprocess_wikitext import process_results as wikitext_results  # noqa: F401
from lm_eval.tasks.wikitext.preprocess_wikitext import wikitext_detokenizer  # noqa: F401
from lm_eval.tasks.winogrande.preprocess_winogrande import doc_to_choice as winogrande_choice  # noqa: F401
from lm_eval.tasks.winogrande.preprocess_winogrande import doc_to_target as winogrande_target  # noqa: F401
from lm_eval.tasks.winogrande.preprocess_winogrande import doc_to_text as winogrande_text  # noqa: F401


def _rows(name: str) -> list[dict]:
    folder = os.environ.get("LOCAL_EVAL_DATA")
    if not folder:
        raise ValueError(f"the tasks offline_* need LOCAL_EVAL_DATA, the folder that holds {name}")
    path = Path(folder).expanduser() / name
    if not path.is_file():
        raise ValueError(f"LOCAL_EVAL_DATA={folder}: there is no file {name}")
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _cut(text: str, share: float, chars: int) -> str:
    """About `chars` characters from the first paragraph break behind `share` of the text on, ending between words."""
    begin = text.find("\n\n", int(len(text) * share)) + 2
    begin = 0 if begin < 2 else begin
    piece = text[begin : begin + chars]
    if begin + chars < len(text):
        piece = piece[: max(piece.rfind(" "), piece.rfind("\n"))]
    return piece


def load(rows: dict[str, str], where: dict | None = None, cut: dict | None = None, **_ignored: object) -> datasets.DatasetDict:
    """Returns the splits of a task.

    Args:
        rows: split name to file name.
        where: keeps only rows whose fields have these values.
        cut: {share: [...], chars: N} replaces each row's `text` by one piece of it for each share.
        **_ignored: the task's metadata and the model's arguments, which the harness passes to every loader.
    """
    splits = {}
    for split, name in rows.items():
        found = [row for row in _rows(name) if all(row[k] == v for k, v in (where or {}).items())]
        if cut:
            found = [{**row, "text": _cut(row["text"], share, cut["chars"])} for row in found for share in cut["share"]]
        if not found:
            raise ValueError(f"no rows for split {split!r} in {name}")
        splits[split] = datasets.Dataset.from_list(found)
    return datasets.DatasetDict(splits)


def worked_examples() -> list[dict]:
    """The eight worked examples of the harness's own gsm8k_cot, from the installed harness."""
    import lm_eval
    import yaml

    class Loader(yaml.SafeLoader):
        """Reads past the harness's own tags."""

    Loader.add_multi_constructor("!", lambda *_: None)
    path = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k-cot.yaml"
    return yaml.load(path.read_text(encoding="utf-8"), Loader)["fewshot_config"]["samples"]
