"""Whether the machines that cells ask for exist, said before anything starts."""

from __future__ import annotations

from study.config import Cell
from study.config.hardware import HardwareError, get_slice
from sweeps.runner.capacity import LOCAL, kind_of
from sweeps.study import Study, StudyError


def kinds(study: Study) -> dict[str, str]:
    """The kind of machine of every cell, by its id.

    Raises:
      StudyError: a cell asks for a machine that there is none of, or that Ray cannot reserve.
    """
    return {cell.id: _kind(study, cell) for cell in study.cells}


def _kind(study: Study, cell: Cell) -> str:
    asked = study.execution_of(cell).slice
    try:
        kind = kind_of(asked)
        if kind != LOCAL:
            _reservable(kind)
    except HardwareError as error:
        raise StudyError(f"cell {cell.id}: {error}") from None
    return kind


def _reservable(kind: str) -> None:
    """Ray takes a wrong topology, and then tries for ever to find a slice of it."""
    wanted = get_slice(kind)
    if wanted.chip.kind != "tpu":
        return
    from ray._private.accelerators import TPUAcceleratorManager

    valid = TPUAcceleratorManager.is_valid_tpu_accelerator_topology
    if not valid(wanted.accelerator_type, wanted.topology):
        raise HardwareError(
            f"Ray knows no {wanted.chip.ray} slice of {wanted.topology} chips ({kind})"
        )
    if wanted.slices > 1 and wanted.hosts_per_slice == 1:
        raise HardwareError(
            f"{kind}: Ray cannot keep several one-host slices off the hosts of larger ones; "
            "use one slice of more hosts"
        )


def caps(texts: list[str]) -> tuple[dict[str, int], int | None]:
    """`--max-parallel v4-32=2` (by kind) and `--max-parallel 8` (of all kinds together).

    Raises:
      StudyError: it is neither.
    """
    by_kind: dict[str, int] = {}
    at_once: int | None = None
    for text in texts:
        name, equals, count = text.rpartition("=")
        if not count.isdigit() or int(count) < 1:
            raise StudyError(
                f"--max-parallel {text}: give a number of cells, for all machines (8) or for one "
                "kind (v4-32=2)"
            )
        if not equals:
            at_once = int(count)
            continue
        try:
            by_kind[name if name == LOCAL else kind_of(name)] = int(count)
        except HardwareError as error:
            raise StudyError(f"--max-parallel {text}: {error}") from None
    return by_kind, at_once
