"""Types of machines: what a cell asks for, and which of it Ray can reserve."""

from __future__ import annotations

import functools

from study.config import Execution
from study.config.hardware import HardwareError, get_slice
from sweeps.study import Study, StudyError

_slice = functools.cache(get_slice)
LOCAL = "local"  # a core of this machine; "local-4" is four of them


def machine_of(execution: Execution) -> str:
    """The type of machine that a cell asks for, in the one spelling that is used here.

    Raises:
      HardwareError: there is no such slice.
    """
    if execution.slice is None or (name := _slice(execution.slice).name) == "cpu":
        return LOCAL if execution.cores == 1 else f"{LOCAL}-{execution.cores}"
    return name


def cores_of(machine: str) -> int:
    """The cores that a local machine type has."""
    _, _, cores = machine.partition("-")
    return int(cores or 1)


def hosts_of(machine: str) -> int:
    """The hosts that one machine has, each of them one process."""
    return 1 if is_local(machine) else _slice(machine).hosts


def is_local(machine: str) -> bool:
    return machine.partition("-")[0] == LOCAL


def machines(study: Study) -> dict[str, str]:
    """The type of machine of every cell, by its id.

    Raises:
      StudyError: a cell asks for a machine that does not exist, or that Ray cannot reserve.
    """
    found = {}
    for cell in study.cells:
        try:
            found[cell.id] = machine_of(study.execution_of(cell))
            _check_reservable(found[cell.id])
        except HardwareError as error:
            raise StudyError(f"cell {cell.id}: {error}") from None
    return found


def parse_machine(text: str) -> str:
    """A machine type as users write it.

    Raises:
      HardwareError: there is no such machine.
    """
    return text if is_local(text) else machine_of(Execution(slice=_slice(text).name))


@functools.cache
def _check_reservable(machine: str) -> None:
    """Ray accepts a wrong topology, and then waits for ever for a slice of it."""
    if is_local(machine) or (wanted := _slice(machine)).chip.kind != "tpu":
        return
    from ray._private.accelerators import TPUAcceleratorManager

    valid = TPUAcceleratorManager.is_valid_tpu_accelerator_topology
    if not valid(wanted.accelerator_type, wanted.topology):
        raise HardwareError(
            f"Ray has no {wanted.chip.ray} slice of {wanted.topology} chips ({machine})"
        )
    if wanted.slices > 1 and wanted.hosts_per_slice == 1:
        raise HardwareError(
            f"{machine}: Ray cannot keep several one-host slices off the hosts of larger ones; "
            "use one slice of more hosts"
        )
