"""Two more models of the harness: one that asks a server for a shard of a run, and one that answers from what the shards wrote down.

`dtrnet-shard` leaves its requests' answers in a file (answerlog.py) and ends the harness there: other shards have the rest. What is
in the file is not asked again. `dtrnet-answers` gives the harness all answers of a run, so that every metric, standard error and group is
the harness's own, as of a run that was never divided.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from dtrnet_eval import answerlog, modelargs, shards
from dtrnet_eval.answerlog import Answer, AnswerFile
from dtrnet_eval.answers import Usage
from dtrnet_eval.errors import EvalError, OriginError, UsageError
from dtrnet_eval.lm import DtrnetLM
from dtrnet_eval.merged import Whole
from dtrnet_eval.origin import Origin
from dtrnet_eval.shards import Name, Shard

EMPTY: dict[str, Any] = {"loglikelihood": (0.0, False), "loglikelihood_rolling": 0.0, "generate_until": ""}


class AnsweredError(EvalError):
    """No failure: a shard has its answers, and the harness must not judge those of the others."""


class ShardLM(DtrnetLM):
    """A dtrnet server that is asked for one shard.

    Args:
        shard: `2/4`.
        answers: file of the answers, which `open` has begun.
        **others: as of `DtrnetLM`.
    """

    opened: AnswerFile | None = None  # by `open`: the harness makes the model itself, from text alone

    @classmethod
    def open(cls, given: dict[str, Any], record: Origin) -> None:
        """The file that model arguments name.

        Raises:
            UsageError: they name no shard or no file.
        """
        if not given.get("shard") or not given.get("answers"):
            raise UsageError("the model type dtrnet-shard needs shard=K/N and answers=FILE; `dtrnet-eval suite --shard K/N` gives both")
        cls.opened = AnswerFile(Path(str(given["answers"])), Shard.read(str(given["shard"])), record)

    def __init__(self, shard: str = "", answers: str = "", **others: Any) -> None:
        super().__init__(**others)
        if self.opened is None:
            raise UsageError("the model type dtrnet-shard works within `dtrnet-eval run` only")
        self.file = self.opened
        self.shard = Shard.read(str(shard))
        self.known: dict[tuple[str, Name], tuple[str, Any]] = {}
        for answer in self.file.before:
            self.known |= {(answer.kind, name): value for name, value in answer.values.items()}
        self._asked: list[tuple[Name, str]] = []
        self._since = time.monotonic()
        self._truncated = 0
        if self.known:
            print(f"shard {self.shard}: goes on behind {len(self.known)} answers", flush=True)

    def _share(self, kind: str, requests: list[Instance], disable_tqdm: bool) -> list[Any]:
        """Asks what is of this shard and not known yet; the others' places are empty."""
        named = shards.names(requests)
        out = [EMPTY[kind]] * len(requests)
        left = []
        for place in shards.mine(named, shards.weights([request.args for request in requests]), self.shard):
            digest = answerlog.asked(kind, requests[place].args)
            known = self.known.get((kind, named[place]))
            if known and known[0] != digest:
                name = named[place]
                raise OriginError(f"{self.file.path}: item {name.item} of {name.task} was asked otherwise before; remove it")
            if not known:
                left.append((place, digest))
        self._asked = [(named[place], digest) for place, digest in left]
        self._since, self._truncated = time.monotonic(), self.truncated
        getattr(super(), kind)([requests[place] for place, _ in left], disable_tqdm=disable_tqdm)
        return out

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """This shard's."""
        return self._share("loglikelihood", requests, disable_tqdm)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """This shard's."""
        return self._share("loglikelihood_rolling", requests, disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """This shard's."""
        return self._share("generate_until", requests, disable_tqdm)

    def answered(self, kind: str, values: dict[int, Any], usage: Usage, sequences: int) -> None:
        """Writes it down."""
        super().answered(kind, values, usage, sequences)
        now = time.monotonic()
        named = {self._asked[place][0]: (self._asked[place][1], value) for place, value in values.items()}
        self.file.add(Answer(kind, named, usage, sequences, self.truncated - self._truncated, round(now - self._since, 6)))
        self._since, self._truncated = now, self.truncated

    def finish(self) -> None:
        """All of this shard is answered."""
        self.file.finish(settings=self.settings())


class AnswersLM(LM):
    """What the shards of a run have written down.

    Args:
        answers: folder of their files.
        **others: what the harness passes to every model.

    Raises:
        ResultsError: a shard is missing or not whole.
        OriginError: they are of more than one origin.
    """

    def __init__(self, answers: str = "", **others: Any) -> None:
        super().__init__()
        modelargs.refuse_unknown(others, AnswersLM.__init__)
        self.whole = Whole(Path(str(answers)))
        DtrnetLM.latest = self  # type: ignore[assignment]

    def get_model_info(self) -> dict[str, Any]:
        """Goes into the results' `config`, as of `DtrnetLM`."""
        return {"dtrnet_run": self.whole.summary(), "dtrnet_kv": {}}

    def _answers(self, kind: str, requests: list[Instance]) -> list[Any]:
        return [self.whole.value(kind, name, request.args) for name, request in zip(shards.names(requests), requests)]

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """From the files."""
        return self._answers("loglikelihood", requests)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """From the files."""
        return self._answers("loglikelihood_rolling", requests)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """From the files."""
        return self._answers("generate_until", requests)
