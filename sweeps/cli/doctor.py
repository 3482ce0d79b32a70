"""`study doctor`: check this machine, and optionally a cluster, for what a study needs."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from sweeps.cli.options import Data, Json, Root, Set, root_of, study_of
from sweeps.cli.table import table


def doctor(
    name: Annotated[
        str | None, typer.Argument(metavar="STUDY", help="Also check that its cells can be placed.")
    ] = None,
    root: Root = "runs",
    data: Data = None,
    settings: Set = None,
    address: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Also check this Ray cluster.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Check this machine or cluster for what a study needs."""
    from study.data.files import absolute, to_path
    from study.records.storage import resolve
    from sweeps.doctor.machine import check_machine

    study = study_of(name, data, settings, None) if name else None
    folder = to_path(absolute(study.data_root if study is not None else data or "data"))
    checks = list(check_machine(resolve(root_of(root)).absolute(), folder))
    if study is not None or address is not None:
        from sweeps.doctor.ray import check_cluster

        checks += check_cluster(study, address)
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=1))
    else:
        print(table(("", "", ""), [(c.verdict, c.name, c.text) for c in checks]).lstrip("\n"))
    return 1 if any(check.verdict == "fail" for check in checks) else 0
