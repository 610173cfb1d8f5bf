"""What this package changes in lm-evaluation-harness, all in this file. Tried with 0.4.9 to 0.4.13.

| change | why | versions |
|---|---|---|
| the model types `dtrnet`, `dtrnet-shard`, `dtrnet-answers` are registered | the harness discovers no outside packages | all |
| `utils.env.from_string` keeps templates | a task's templates are compiled anew for every item | all |
| `evaluator.simple_evaluate` is wrapped | results get their record of origin; folders of another origin are refused | all |
| filters end the run of a shard | what comes behind the answers judges items of other shards too | all |
| the same wrapper adds the model's info | only the harness's own models are asked for it | before 0.4.13 |
| `TaskManager` reads our tasks alone | reading the harness's 14,000 takes 15 s, and is left out where nothing of them is asked for | all |
| `tasks.Path` may be elsewhere | its log fails for tasks outside its own tree (its issue 3435) | 0.4.9.2 |
| `RemoteTokenizer` gets the key | `local-completions` takes it from an argument only, which would stand in the results | from 0.4.9.2 |
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from dtrnet_eval import access, origin, tasks
from dtrnet_eval.access import Access
from dtrnet_eval.answers import ServerInfo
from dtrnet_eval.errors import EvalError, OriginError, ServerError, UsageError
from dtrnet_eval.merged import Whole
from dtrnet_eval.pool import Pool

# ValueErrors of the harness and of the task files that say what a person got wrong.
PERSONS_MISTAKES = ("Tasks not found", "LOCAL_EVAL_DATA")
TRACEBACK_VARIABLE = "DTRNET_EVAL_TRACEBACK"
SEEDS = {"random": "random_seed", "numpy": "numpy_random_seed", "torch": "torch_random_seed", "fewshot": "fewshot_random_seed"}


def register() -> None:
    """Makes `--model dtrnet` known. The harness's own models are registered first: it does so by itself only while there are none."""
    import lm_eval.models  # noqa: F401
    from lm_eval.api.registry import register_model

    from dtrnet_eval.lm import DtrnetLM
    from dtrnet_eval.shardlm import AnswersLM, ShardLM

    register_model("dtrnet")(DtrnetLM)
    register_model("dtrnet-shard")(ShardLM)
    register_model("dtrnet-answers")(AnswersLM)


def keep_templates() -> None:
    """Keeps compiled templates."""
    from lm_eval import utils

    utils.env.from_string = functools.lru_cache(maxsize=1024)(utils.env.from_string)


def read_only_folder() -> None:
    """Makes task managers leave the harness's own tasks out."""
    from lm_eval.tasks import TaskManager

    initial = TaskManager.__init__

    @functools.wraps(initial)
    def without_defaults(self: Any, *args: Any, **kwargs: Any) -> None:
        initial(self, *args, **{"include_defaults": False, **kwargs})

    TaskManager.__init__ = without_defaults


def allow_other_folders() -> None:
    """Lets 0.4.9.2 log the place of a task that is not in its own tree."""
    if origin.harness_version() != "0.4.9.2":
        return
    import lm_eval.tasks

    class OwnPath(type(Path())):  # type: ignore[misc]
        """A path that is no error where it is elsewhere."""

        def relative_to(self, *other: Any) -> Path:
            """Itself where it is not below."""
            try:
                return super().relative_to(*other)
            except ValueError:
                return self

    lm_eval.tasks.Path = OwnPath


def give_tokenizer_key() -> None:
    """Sends the environment's key with the remote tokenizer's requests."""
    from lm_eval import utils

    if not hasattr(utils, "RemoteTokenizer"):
        return
    initial = utils.RemoteTokenizer.__init__

    @functools.wraps(initial)
    def with_key(
        self: Any, base_url: str, timeout: int = 30, verify_certificate: Any = True, ca: Any = None, token: Any = None, **more: Any
    ) -> None:
        initial(self, base_url, timeout, verify_certificate, ca, token or Access(base_url).key(), **more)

    utils.RemoteTokenizer.__init__ = with_key


def _arguments(value: Any) -> dict[str, Any]:
    """The harness's model arguments, which are a mapping or `a=1,b=2`."""
    if isinstance(value, dict):
        return value
    return dict(part.split("=", 1) for part in str(value or "").split(",") if "=" in part)


def server_of(model: Any, model_args: Any) -> Pool | None:
    """A client of the dtrnet server that a model of the harness asks; None where it asks something else."""
    given = _arguments(model_args)
    ours = model in ("dtrnet", "dtrnet-shard")
    if not isinstance(model, str) or not (given.get("base_url") or ours):
        return None
    verify = str(given.get("verify_certificate", True)).lower() not in ("false", "0")
    client = Pool(Access(given.get("base_url") or Access.base_url, given.get("api_key_file"), verify, given.get("ca_cert_path")))
    try:
        client.version(patience_s=30 if ours else 0)
    except ServerError:
        if ours:
            raise
        return None
    return client


def _same_server(client: Pool, before: ServerInfo) -> None:
    """That the server is still the one that the run began with; it may have been started again meanwhile."""
    now = origin.Origin(client.version().raw).settings()
    differs = origin.differences(origin.Origin(before.raw).settings(), now)
    if differs:
        raise OriginError(f"the server was another at the end of the run, nothing is saved: {'; '.join(differs)}")


def _name_results(tracker: Any, name: str) -> None:
    """Results lie in a folder of the model's name."""
    from lm_eval.utils import sanitize_model_name

    tracker.general_config_tracker.model_name = name
    tracker.general_config_tracker.model_name_sanitized = sanitize_model_name(name)


def _complete(results: dict[str, Any], server: ServerInfo, record: origin.Origin) -> None:
    from dtrnet_eval.lm import DtrnetLM

    config = results["config"]
    if record.client == "dtrnet" and DtrnetLM.latest and "dtrnet_run" not in config:
        config.update(DtrnetLM.latest.get_model_info())
    config["device"] = server.device
    config[origin.KEY] = replace(record, tasks=dict(results.get("versions", {}))).as_json()


def _record(model: Any, server: ServerInfo | None, whole: Whole | None, kwargs: dict[str, Any]) -> origin.Origin | None:
    """Of what the harness is about to do; a merged run has the record of an undivided one."""
    if server is None:
        return None
    seeds = {name: kwargs.get(argument) for name, argument in SEEDS.items()}
    client = "dtrnet" if model in ("dtrnet-shard", "dtrnet-answers") else str(model)
    record = origin.Origin.now(server, client, harness=origin.harness_version(), limit=kwargs.get("limit"), seeds=seeds)
    return whole.record(record) if whole else record


def _run_shard(evaluate: Callable[[], Any], client: Pool, server: ServerInfo) -> None:
    """Until the shard has its answers; those of a server that is another at the end are removed."""
    from lm_eval.api.filter import FilterEnsemble

    from dtrnet_eval.lm import DtrnetLM
    from dtrnet_eval.shardlm import AnsweredError, ShardLM

    def end(*_: Any) -> None:
        raise AnsweredError("answered")

    FilterEnsemble.apply = end
    with contextlib.suppress(AnsweredError):
        evaluate()
    asked = DtrnetLM.latest
    if not isinstance(asked, ShardLM):
        raise EvalError("the harness has asked nothing")
    try:
        _same_server(client, server)
    except OriginError:
        asked.file.discard()
        raise
    asked.finish()


def keep_origin() -> None:
    """Puts the record of origin into results, and refuses a folder that has results of another."""
    from lm_eval import evaluator

    from dtrnet_eval.shardlm import ShardLM

    evaluate = evaluator.simple_evaluate

    @functools.wraps(evaluate)
    def with_origin(*args: Any, **kwargs: Any) -> Any:
        model, tracker = kwargs.get("model", args[0] if args else None), kwargs.get("evaluation_tracker")
        given = kwargs.get("model_args")
        whole = Whole(Path(str(_arguments(given).get("answers", "")))) if model == "dtrnet-answers" else None
        client = server_of(model, given)
        server = whole.origin.info if whole else client.version() if client else None
        record = _record(model, server, whole, kwargs)
        place = getattr(tracker, "output_path", None)
        if place:
            origin.check(Path(place), record)
        if model == "dtrnet-shard" and client and server and record:
            ShardLM.open(_arguments(given), record)
            return _run_shard(lambda: evaluate(*args, **kwargs), client, server)
        results = evaluate(*args, **kwargs)
        if results and server and record:
            if client:
                _same_server(client, server)
            _complete(results, server, record)
            if tracker:
                _name_results(tracker, server.model)
        return results

    evaluator.simple_evaluate = with_origin


def _value_of(arguments: list[str], *names: str) -> str | None:
    """The value behind a flag, in both of its forms."""
    for at, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names and (equals or at + 1 < len(arguments)):
            return value if equals else arguments[at + 1]
    return None


def _our_tasks(arguments: list[str]) -> list[str]:
    """The arguments with our own task folder where no other is named and a task of it is asked for."""
    asked = _value_of(arguments, "--tasks", "-t")
    folder = _value_of(arguments, "--include_path")
    if asked is None:
        return arguments
    if folder is None and tasks.in_folder(asked.split(","), tasks.FOLDER):
        folder = str(tasks.FOLDER)
        arguments = [*arguments, "--include_path", folder]
    if folder and tasks.in_folder(asked.split(","), Path(folder), every=True):
        read_only_folder()
    return arguments


def _must_be_writable(place: str | None) -> None:
    """The harness would only warn, behind the whole run."""
    if not place:
        return
    folder = Path(place).parent if place.endswith(".json") else Path(place)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output_path {place}: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--output_path {place}: not writable")


@contextlib.contextmanager
def _lines_for_errors() -> Any:
    """Makes exceptions of the harness one line; $DTRNET_EVAL_TRACEBACK keeps them whole."""
    try:
        yield
    except (EvalError, KeyboardInterrupt, SystemExit):
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        if isinstance(error, ValueError) and any(known in str(error) for known in PERSONS_MISTAKES):
            raise UsageError(first) from None
        raise EvalError(f"the harness failed: {type(error).__name__}: {first} ({TRACEBACK_VARIABLE}=1 shows where)") from None


def prepare() -> Callable[[], None]:
    """Makes all changes; the harness's command line."""
    register()
    keep_templates()
    keep_origin()
    allow_other_folders()
    give_tokenizer_key()
    from lm_eval.__main__ import cli_evaluate

    return cli_evaluate


def run(arguments: list[str]) -> int:
    """`dtrnet-eval run`: hands over to the harness, whose newer command lines (`lm_eval._cli`) have a subcommand `run`."""
    access.refuse_secrets(arguments)
    if not any(word in ("-h", "--help") for word in arguments):
        _must_be_writable(_value_of(arguments, "--output_path", "-o"))
    with _lines_for_errors():
        cli = prepare()
        arguments = _our_tasks(arguments)
        sys.argv = ["dtrnet-eval", *(["run"] if importlib.util.find_spec("lm_eval._cli") else []), *arguments]
        cli()
    return 0
