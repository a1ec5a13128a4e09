"""Services that show a run's metrics: wandb and trackio, beside metrics.jsonl and TensorBoard.

A run is one chart there, however often it stops: the chart's name is kept in the workdir. A logger
can fail at any time, and the run goes on: metrics.jsonl has all.
"""

import contextlib
import importlib.util
import io
import logging
import os
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple, Self

from permix_jax.core.distributed import is_main
from permix_jax.core.files import json_rows, read_object, write_json
from permix_jax.core.places import at_hand

_LOG = logging.getLogger(__name__)
_FILE = "loggers.json"
_PROJECT = "permix_jax"
_OF_RUN = ("name", "preset", "changed", "versions", "git", "device")  # of config.json

# A table of completions: rows in all, rows of a persona, characters of a text.
TABLE_ROWS, PERSONA_ROWS, TEXT_LENGTH = 64, 4, 1000
COLUMNS = ("persona", "problem", "prompt", "completion", "answer", "correct", "reward", "truncated")


class Chart(NamedTuple):
    """What a logger is opened with.

    id: eight hexadecimal digits, the same whenever the run goes on. name: for people.
    config: its fields, and under "run" what else config.json says. folder: the workdir, or where
    that is in a store, a folder of this machine.
    """

    id: str
    name: str
    config: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class Logger:
    """An open chart of a service.

    last: the newest step that it has, 0 for none. where: what a user does to see it.
    log: of a step, its values by name, and a table to be made by `table`, if any.
    report: of the path of a file. finish: of the exit status.
    """

    last: int
    where: str
    log: Callable[[int, Mapping[str, Any]], None]
    table: Callable[[Sequence[str], Sequence[list]], Any]
    report: Callable[[Path], None]
    finish: Callable[[int], None]


def open_wandb(chart: Chart) -> Logger:
    """Weights & Biases. WANDB_PROJECT, WANDB_ENTITY and WANDB_MODE=offline are heeded.

    Online, wandb says which steps it has. Offline it writes a folder for every start, and a kill
    takes what it wrote in the last 15 seconds; so every start writes the whole run, and the newest
    folder is the one to upload. Raises RuntimeError where nobody is logged in: wandb would ask in
    the terminal, and the run would wait.
    """
    import wandb

    online = wandb.setup().settings.mode in (None, "online", "run", "shared")
    if online and not wandb.login(prompt=False, verify=False):
        raise RuntimeError("nobody is logged in; run 'wandb login', or set WANDB_MODE=offline")
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", _PROJECT),
        id=chart.id,
        name=chart.name,
        dir=chart.folder,
        config=dict(chart.config),
        resume="allow",
        allow_val_change=True,  # fields may change when a run goes on
        # Silent: the run has its own lines. It does not wait longer for a network that is gone.
        settings=wandb.Settings(console="off", silent=True, finish_timeout=60),
    )

    def report(path: Path) -> None:
        artifact = wandb.Artifact(f"report-{chart.id}", type="report")
        artifact.add_file(str(path))
        run.log_artifact(artifact)

    return Logger(
        last=run.starting_step - 1 if online else 0,
        where=run.url if online else f"'wandb sync {chart.folder}/wandb/latest-run' uploads it",
        log=lambda step, values: run.log(dict(values), step=step),
        table=lambda columns, rows: wandb.Table([*columns], rows, allow_mixed_types=True),
        report=report,
        finish=lambda status: run.finish(exit_code=status),
    )


def open_trackio(chart: Chart) -> Logger:
    """trackio: a database on this machine, or what TRACKIO_SPACE_ID or TRACKIO_SERVER_URL name."""
    import trackio

    project = os.environ.get("TRACKIO_PROJECT", _PROJECT)
    name = f"{chart.name}-{chart.id}"  # trackio finds a run by its name
    with contextlib.redirect_stdout(io.StringIO()):
        run = trackio.init(project, name, config=dict(chart.config), resume="allow", embed=False)

    def finish(status: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            trackio.finish()

    return Logger(
        last=run._initial_last_step or 0,  # nothing public says it
        where=f"'trackio show --project {project}' shows it",
        log=lambda step, values: run.log(dict(values), step=step),
        table=lambda columns, rows: trackio.Table([*columns], rows),
        report=lambda path: run.log_artifact(path, name=f"report-{chart.id}", type="report"),
        finish=finish,
    )


SERVICES = {"wandb": open_wandb, "trackio": open_trackio}


def require_installed(names: Iterable[str]) -> None:
    """Raises ImportError, in one line, for the first logger whose package is missing."""
    for name in names:
        spec = importlib.util.find_spec(name) if name in SERVICES else None
        if name in SERVICES and (spec is None or spec.origin is None):  # a folder wandb/ has none
            raise ImportError(
                f"train.loggers has {name!r}, which needs a package: pip install -e '.[{name}]'; "
                "or leave it out"
            )


class Loggers:
    """The services of a run that are on; none in processes other than the main one.

    Use it as a context manager: at its end the charts are finished. A service that raises an error
    is left out from there on, and one warning says so.
    """

    def __init__(self, names: Iterable[str] = (), workdir: Path = Path()):
        self._names = [name for name in names if name in SERVICES]
        self._workdir = workdir
        self._open: dict[str, Logger] = {}
        self._table: list[list] = []  # of the step that is being done

    def begin(self, found: Sequence[Mapping[str, float]], done: int) -> None:
        """Opens the charts, and sends them the steps up to `done` that they lack.

        A step that a chart has is not sent again, also where the run does it again after a kill:
        its values are the same, but for clocks and rounding.

        found: all rows of metrics.jsonl. done: the step that the run goes on from.
        """
        if not self._names or not is_main():
            return
        chart = self._chart()
        for name in self._names:
            self._try(name, partial(self._begin, name, chart))
        oldest = min([logger.last for logger in self._open.values()], default=done)
        for row in found:
            if oldest < (step := row["step"]) <= done:
                file = self._workdir / "completions" / f"{step}.jsonl"
                self.completions(json_rows(file.read_text("utf-8"), file) if file.exists() else [])
                self.write(row)

    def completions(self, records: Sequence[Mapping[str, Any]]) -> None:
        """The rows of `completions/<step>.jsonl`, some of which go with the row of the step."""
        self._table = table_of(records) if self._open else []

    def write(self, row: Mapping[str, float]) -> None:
        """Sends the metrics of a step, `row["step"]`, and its completions."""
        values = {name: x for name, x in row.items() if name != "step"}
        for name, logger in [*self._open.items()]:
            if row["step"] > logger.last:
                self._try(name, partial(_send, logger, row["step"], values, self._table))
        self._table = []

    def report(self, path: Path) -> None:
        """Sends the run's report, a file of HTML, as an artefact."""
        if not self._open:
            return
        with at_hand(path) as file:
            for name, logger in [*self._open.items()]:
                self._try(name, partial(logger.report, file))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, error: type | None, *_: Any) -> None:
        for name, logger in [*self._open.items()]:
            self._try(name, partial(logger.finish, 1 if error else 0))
        self._open.clear()

    def _chart(self) -> Chart:
        """The chart of the workdir, whose name is made at the first start and kept."""
        path = self._workdir / _FILE
        if not path.exists():
            name = self._workdir.absolute().name
            write_json(path, {"id": uuid.uuid4().hex[:8], "name": name})
        kept = read_object(path, "")
        record = read_object(self._workdir / "config.json", "")
        config = record["config"] | {"run": {name: record.get(name) for name in _OF_RUN}}
        folder = self._workdir
        if not isinstance(folder, Path):  # a store, to which the services do not write
            folder = Path(tempfile.mkdtemp(prefix="permix_jax-"))
        return Chart(kept["id"], kept["name"], config, folder)

    def _begin(self, name: str, chart: Chart) -> None:
        self._open[name] = SERVICES[name](chart)
        _LOG.info("%s: %s", name, self._open[name].where)

    def _try(self, name: str, deed: Callable[[], None]) -> None:
        try:
            deed()
        except Exception as error:  # whatever a service raises, the run goes on
            self._open.pop(name, None)
            said = " ".join(str(error).split()) or type(error).__name__
            _LOG.warning("%s: %s; the run goes on without it (metrics.jsonl has all)", name, said)


def _send(logger: Logger, step: int, values: Mapping[str, float], rows: Sequence[list]) -> None:
    table = {"completions": logger.table(COLUMNS, rows)} if rows else {}
    logger.log(step, {**values, **table})


def table_of(records: Sequence[Mapping[str, Any]]) -> list[list]:
    """Rows of COLUMNS: the first completions of each persona, sorted by persona.

    At most PERSONA_ROWS of a persona and TABLE_ROWS in all, of which no persona has two before
    every other has one. Longer texts are cut to TEXT_LENGTH characters. No persona is "none".
    """
    of_persona: dict[str, list] = {}
    for record in records:
        row = [record["persona"] or "none", *(record[name] for name in COLUMNS[1:])]
        row = [x[:TEXT_LENGTH] if isinstance(x, str) else x for x in row]
        of_persona.setdefault(row[0], []).append(row)
    rounds = islice(zip_longest(*of_persona.values()), PERSONA_ROWS)
    rows = [row for each in rounds for row in each if row is not None]
    return sorted(rows[:TABLE_ROWS], key=lambda row: row[0])
