"""`prorl-study`: runs a stage's notebook, switches profiles, judges answers and models, sizes experiments,
writes the index page.

Whatever DVC, papermill or Jupyter do themselves is left to them: `dvc repro` runs the pipeline, `dvc
exp` compares runs. Bad input ends with one sentence on stderr and exit code 1.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ruamel.yaml import YAML, YAMLError

from prorl_study import params
from prorl_study.errors import StudyError
from prorl_study.paths import Workspace, project_root
from prorl_study.stages import STAGES, choose_parameters, find_stage, stage_values

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
MISSING = "(absent)"


def run_stage(
    name: str, segment: str | None, workspace: str, overrides: Mapping[str, Any], defaults: bool = False
) -> None:
    """Run one stage's notebook and write its page and run card.

    Its parameters come from `params.yaml`, or with `defaults` from the notebook itself, but for the place
    and the segment; `overrides` win.
    """
    from prorl_study import reporting  # here, as it imports Jupyter; `profile` and --help need none of it
    from prorl_study.provenance import run_card

    stage, root, ws = find_stage(name), project_root(), Workspace.open(workspace)
    study = params.load(root / "params.yaml")
    chosen_notebook = stage.notebook if defaults else stage.notebook_for(study.origin)
    notebook = root / "notebooks" / chosen_notebook
    offered = stage_values(name, study, segment) | {"workspace": workspace}
    declared = reporting.declared_parameters(notebook)
    if defaults:
        chosen = {key: offered[key] for key in ("workspace", "segment", "previous") if key in offered}
    else:
        chosen = choose_parameters(f"notebooks/{chosen_notebook}", declared, offered)
    page = stage.page(segment)
    origin = f"Made by notebooks/{chosen_notebook}, stage {name}{f'@{segment}' if segment else ''}."
    with run_card(f"{name}_{segment}" if segment else name, ws.results, root / "params.yaml"):
        reporting.run_notebook(
            notebook,
            chosen | dict(overrides),
            ws.reports / f"{page}.html",
            ws.runs,
            title_of(notebook) + (f", segment {segment}" if segment else ""),
            origin,
            online=chosen_notebook == stage.elsewhere,
        )


def title_of(notebook: Path) -> str:
    """The notebook's first heading. Raises StudyError where there is none."""
    import nbformat

    for cell in nbformat.read(notebook, as_version=4).cells:
        heading = re.match(r"#\s+(.+)", cell.source) if cell.cell_type == "markdown" else None
        if heading:
            return heading[1].strip()
    raise StudyError(f"{notebook.name} has no heading; start its first text cell with `# Title`.")


WHOLE = ("arms.arms",)
"""Mappings that a profile replaces: merged, the arms that it leaves out would stay."""


def switch_profile(name: str, root: Path) -> list[str]:
    """Make `params.yaml` that of `conf/profiles/<name>.yaml`; one line `key: old -> new` per change.

    Comments stay, and so does every key that no profile names; what another profile had changed does not.
    Raises StudyError for an unknown profile and for one that makes invalid parameters; `params.yaml` is then
    as it was.
    """
    target, fresh = root / "params.yaml", root / "params.yaml.new"
    yaml, current, profile = _with_profile(name, root)
    try:
        yaml.dump(profile, fresh)
        params.load(fresh)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    return list(_changes(current, profile))


def of_profile(name: str, root: Path) -> params.Params:
    """The parameters that `switch_profile` would leave. Raises StudyError as it does."""
    yaml, _, profile = _with_profile(name, root)
    with tempfile.TemporaryDirectory() as folder:
        yaml.dump(profile, Path(folder) / "params.yaml")
        return params.load(Path(folder) / "params.yaml")


def _with_profile(name: str, root: Path) -> tuple[YAML, Any, Any]:
    """A YAML writer, `params.yaml` as it is, and with laptop and then `name` merged into it: laptop names
    every key that some profile changes, so that nothing of the profile before is left."""
    folder = root / "conf" / "profiles"
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise StudyError(f"no such profile: {name}; conf/profiles has {', '.join(known)}.")
    yaml = YAML()
    yaml.width = 4096  # never wrap a line that somebody wrote in one
    current, merged = (yaml.load(root / "params.yaml") for _ in range(2))
    for part in dict.fromkeys(("laptop", name)):
        _merge(merged, yaml.load(folder / f"{part}.yaml"))
    return yaml, current, merged


def _merge(into: Any, values: Mapping[str, Any], where: str = "") -> None:
    for key, new in values.items():
        old = into.get(key, MISSING)
        if _both_merge(old, new, f"{where}{key}"):
            _merge(old, new, f"{where}{key}.")
        elif old != new or type(old) is not type(new):
            into[key] = new


def _changes(before: Mapping[str, Any], after: Mapping[str, Any], where: str = "") -> Iterator[str]:
    for key, new in after.items():
        old = before.get(key, MISSING)
        if _both_merge(old, new, f"{where}{key}"):
            yield from _changes(old, new, f"{where}{key}.")
        elif old != new or type(old) is not type(new):
            yield f"{where}{key}: {old} -> {new}"


def _both_merge(old: Any, new: Any, place: str) -> bool:
    return place not in WHOLE and isinstance(old, Mapping) and isinstance(new, Mapping)


def plan(root: Path, profile: str | None = None, rate: float | None = None) -> str:
    """The stages with time and peak memory of their last run, as far as run cards know, and below what they
    cost by arithmetic: where the base comes from elsewhere, and where no run card is there.

    Of a `profile` that is named only the latter, since the run cards are of other parameters. `rate` is
    answer tokens a second and card. Raises StudyError as `of_profile` does.
    """
    from prorl_study import planning

    study = of_profile(profile, root) if profile else params.load(root / "params.yaml")
    measured = "" if profile else _last_runs(root, study)
    if measured and not study.origin.base and any((root / "results" / "run_cards").glob("*.json")):
        return measured
    parts = [measured, planning.report(study, root / "results" / "gpu_check.json", rate)]
    return "\n\n".join(part for part in parts if part)


def _last_runs(root: Path, study: params.Params) -> str:
    from prorl_study.provenance import read_cards

    cards, names = {card["stage"]: card for card in read_cards(root / "results")}, []
    for name, stage in STAGES.items():
        each = [f"{name}_{segment}" for segment in study.segments]
        names += each if "segment" in stage.sections else [name]
    lines = [f"{'stage':<16}{'seconds':>10}{'peak MB':>10}  last run"]
    for name in names:
        card = cards.get(name)
        facts = (card["seconds"], card["peak_memory_mb"], card["started"]) if card else ("-", "-", "not yet")
        lines.append(f"{name:<16}{facts[0]:>10}{facts[1]:>10}  {facts[2]}")
    return "\n".join(lines)


def verify_file(path: Path, lenient: bool, isolation: str, workers: int, out: Path | None) -> str:
    """Judge every row of a JSONL file, `{"problem": {...}, "completion": "..."}`; a table of statuses.

    `out` gets one verdict a row, as JSON lines. Raises StudyError that names the line which cannot be used.
    """
    from dataclasses import asdict, fields

    import pandas as pd

    from prorl_study.domains import STATUSES, Problem
    from prorl_study.verification import VerificationPool

    if not path.is_file():
        raise StudyError(f"{path} does not exist; give a JSONL file of problem and completion rows.")
    known, items = {f.name for f in fields(Problem)}, []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="surrogateescape").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            problem, completion = row["problem"], row["completion"]
            unknown = sorted(set(problem) - known)
            if unknown:
                raise ValueError(f"unknown field {', '.join(unknown)}")
            if "domain" not in problem or not isinstance(completion, str):
                raise ValueError("no domain, or no text")
        except (ValueError, TypeError, KeyError) as error:
            raise StudyError(
                f'{path}, line {number}: {error}; a row is {{"problem": {{"domain": ..., ...}}, '
                f'"completion": "..."}} with the fields of prorl_study.domains.Problem.'
            ) from error
        items.append((Problem(**problem), completion))
    with VerificationPool(workers=workers, isolation=isolation) as pool:
        verdicts = pool.verify(items, lenient)
    if out:
        out.write_text("".join(json.dumps(asdict(verdict)) + "\n" for verdict in verdicts))
    rows = [(p.domain, v.status, v.score) for (p, _), v in zip(items, verdicts, strict=True)]
    frame = pd.DataFrame(rows, columns=["domain", "status", "score"])
    table = pd.crosstab(frame.domain, frame.status, margins=True, margins_name="all")
    table = table.reindex(columns=[s for s in (*STATUSES, "all") if s in table])
    table["mean score"] = frame.groupby("domain").score.mean().round(3)
    table.loc["all", "mean score"] = round(frame.score.mean(), 3)
    return table.to_string()


def print_sources(arguments: argparse.Namespace) -> None:
    """List the hub's sets, or prepare those that are named."""
    from prorl_study.hub import prepare
    from prorl_study.verification import VerificationPool

    if not arguments.names:
        print(prepare.listing().to_string(index=False))
        return
    with VerificationPool(workers=arguments.workers) as pool:
        prepare.prepare(arguments.names, arguments.against, arguments.limit, arguments.out, lambda: pool)


def _parse_override(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    try:
        parsed = YAML(typ="safe").load(value)
    except YAMLError:
        parsed = None
    if not equals or not name.isidentifier() or parsed is None:
        raise StudyError(f"--set {text}: must be NAME=VALUE with a YAML value, for example --set steps=2.")
    return name, parsed


def parser(command: str = "") -> argparse.ArgumentParser:
    """The command line; the options of `evaluate`, slow to import, only where that is the `command`."""
    top = argparse.ArgumentParser(prog="prorl-study", description="Runs the parts of the study.")
    commands = top.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a stage's notebook with its parameters from params.yaml")
    run.add_argument("stage", metavar="STAGE", help=f"one of {', '.join(STAGES)}")
    run.add_argument("--segment", help="which segment of params.yaml, for the stage train")
    run.add_argument("--workspace", default=".", help="folder to read and write; the project by default")
    run.add_argument("--defaults", action="store_true", help="the notebook's own values, not params.yaml's")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="override a parameter")
    profile = commands.add_parser("profile", help="merge conf/profiles/NAME.yaml into params.yaml")
    profile.add_argument("name", metavar="NAME")
    verify = commands.add_parser("verify", help="judge a JSONL file of problem and completion rows")
    verify.add_argument("file", metavar="FILE.jsonl", type=Path)
    verify.add_argument("--lenient", action="store_true", help="look for the answer in more places")
    verify.add_argument("--isolation", default="walls", help="walls (the default) or process")
    verify.add_argument("--workers", type=int, default=2, help="pairs of processes that judge")
    verify.add_argument("--out", metavar="FILE", type=Path, help="write one verdict a row, as JSON lines")
    evaluate = commands.add_parser("evaluate", help="judge any model: a local folder or a hub id")
    if command == "evaluate":
        from prorl_study import any_model

        any_model.add_arguments(evaluate)
    again = commands.add_parser("reevaluate", help="the published checkpoints on the paper's benchmarks")
    if command == "reevaluate":
        from prorl_study import reevaluate

        reevaluate.add_arguments(again)
    commands.add_parser("power", help="the smallest differences that the planned sizes can detect, per claim")
    evidence = commands.add_parser("evidence", help="do one run of the long experiments")
    evidence.add_argument("run", help="its name, as in `prorl-study evidence list`, or base-NAME")
    sets = commands.add_parser("sources", help="the paper's data sets: list them, or fetch and check some")
    sets.add_argument("names", nargs="*", metavar="NAME", help="sets to prepare; without, all are listed")
    sets.add_argument(
        "--against", nargs="*", metavar="NAME", help="benchmarks to keep out of them (all that can be had)"
    )
    sets.add_argument("--limit", type=int, help="only the first so many problems of each")
    sets.add_argument("--out", type=Path, default=Path("artifacts/hub"), help="(default: artifacts/hub)")
    sets.add_argument("--workers", type=int, default=2, help="pairs of processes that judge the golds")
    commands.add_parser("index", help="write reports/index.html")
    planned = commands.add_parser("plan", help="what the stages took last time, and what they cost")
    planned.add_argument("--profile", metavar="NAME", help="of that profile, without switching to it")
    planned.add_argument("--rate", type=float, help="answer tokens a second and card, where you know it")
    commands.add_parser("doctor", help="what this machine lacks, and the command that mends it")
    commands.add_parser("snapshot", help="generate the problems that data.dvc tracks into data/")
    return top


def execute(arguments: argparse.Namespace) -> None:
    if arguments.command == "run":
        overrides = dict(_parse_override(text) for text in arguments.set)
        run_stage(
            arguments.stage, arguments.segment, arguments.workspace, overrides, defaults=arguments.defaults
        )
    elif arguments.command == "profile":
        changes = switch_profile(arguments.name, project_root())
        print("\n".join(changes) or f"params.yaml holds profile {arguments.name} already.")
    elif arguments.command == "verify":
        print(
            verify_file(
                arguments.file, arguments.lenient, arguments.isolation, arguments.workers, arguments.out
            )
        )
    elif arguments.command == "evaluate":
        from prorl_study import any_model

        print(any_model.run(arguments))
    elif arguments.command == "reevaluate":
        from prorl_study import reevaluate

        print(reevaluate.command(arguments))
    elif arguments.command == "power":
        from prorl_study import power

        study = params.load(project_root() / "params.yaml")
        models, sizes = ["base", *study.segments], study.power
        print(power.report(Workspace.open().results, study.claims, models, sizes.seed_sd, sizes.n_seeds))
    elif arguments.command == "evidence":
        from prorl_study import experiments, run_targets

        root = project_root()
        if arguments.run in ("list", "targets"):
            study = params.load(root / "params.yaml")
            planned, bases = experiments.load_plan(root / "evidence" / "params.yaml", study)
            named = arguments.run == "list"
            print("\n".join(experiments.in_turn(planned) if named else experiments.targets(planned, bases)))
        elif arguments.run.startswith("base-"):
            print(run_targets.make_base(arguments.run.removeprefix("base-"), root))
        else:
            print(run_targets.start(arguments.run, root))
    elif arguments.command == "sources":
        print_sources(arguments)
    elif arguments.command == "index":
        from prorl_study.reporting import write_index

        print(f"open {write_index(Workspace.open())}")
    elif arguments.command == "plan":
        print(plan(project_root(), arguments.profile, arguments.rate))
    elif arguments.command == "doctor":
        from prorl_study import doctor

        findings = doctor.examine()
        print(doctor.report(findings))
        if bad := [finding.subject for finding in findings if finding.state == "missing"]:
            raise StudyError(f"the default study cannot run here: mend {', '.join(bad)} first.")
    elif arguments.command == "snapshot":
        from prorl_study.problems import snapshot_counts, write_snapshot

        seed = params.load(project_root() / "params.yaml").seed
        write_snapshot(Workspace.open().snapshot, seed, snapshot_counts())


def _on_sigterm(number: int, frame: FrameType | None) -> NoReturn:
    # An exception, so that the notebook's kernel is shut down on the way out.
    raise SystemExit(128 + number)


def main(argv: list[str] | None = None) -> int:
    """The command line. Returns the exit code: 0, 1 for a StudyError, 130 after Ctrl-C."""
    given = sys.argv[1:] if argv is None else argv
    arguments = parser(next(iter(given), "")).parse_args(given)
    signal.signal(signal.SIGTERM, _on_sigterm)
    libc = ctypes.CDLL(None)
    # Whatever outlives a kernel becomes this process's child, so that it can be found and ended.
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    if "DVC_STAGE" in os.environ:
        # A SIGTERM to `dvc repro` reaches DVC alone; without this its stage would run on as an orphan.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        execute(arguments)
    except StudyError as error:
        print(f"prorl-study: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("prorl-study: stopped; what was computed is kept, the same command goes on.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
