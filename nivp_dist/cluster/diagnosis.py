"""Which process is the cause when a group fails. Pure functions of what the processes have reported."""

from typing import NamedTuple


class Failure(NamedTuple):
    """What one process reports before it ends.

    consequence: the failure may be the consequence of another process's failure (``channel.may_be_consequence``).
    """

    cause: str
    code: int
    consequence: bool
    process: int
    host: str


def first_failure(failures: list[Failure]) -> tuple[str, int]:
    """The cause of the end, and the exit code, from the reports in the order in which they came.

    It is that of the first report that is no consequence of another one. The process is named, except when process 0
    reports the same cause: then all processes have it in common.
    """
    first = next((failure for failure in failures if not failure.consequence), failures[0])
    common = any(failure.process == 0 and failure.cause == first.cause for failure in failures)
    where = "" if common else f"process {first.process} on {first.host}: "
    return f"{where}{first.cause}", first.code


def stuck_processes(positions: dict[int, tuple[tuple[int, str], str]], seconds: float) -> str:
    """The cause of the end when a deadline was missed, and all processes have answered.

    positions: index of a process -> ((commands begun so far, label of the last), host). The process that has begun the
    fewest commands is the cause, whichever was the first to complain: all others may just be waiting for it.
    """
    least, label = min(position for position, _ in positions.values())
    _, furthest_label = max(position for position, _ in positions.values())
    behind = {index: host for index, ((count, _), host) in positions.items() if count == least}
    if len(positions) == 1:
        who = f"the run is stuck in '{label}'"
    elif len(behind) == len(positions):
        who = f"all processes are stuck in '{label}'"
    else:
        who = f"{_names(behind)} stuck in '{label}' while the others wait in '{furthest_label}'"
    return f"{who} for more than {seconds:g} s: the stacks are in the logs of the run directory"


def silent_processes(hosts: dict[int, str], label: str, seconds: float) -> str:
    """The cause of the end when a deadline was missed, and some processes do not answer although their hosts do.

    hosts: of these processes, by index. label: of the command in which another process has waited.
    """
    return (
        f"{_names(hosts)} did not answer after more than {seconds:g} s in '{label}': it is suspended (SIGSTOP, a "
        "debugger), or one call holds its Python interpreter"
    )


def _names(hosts: dict[int, str]) -> str:
    return ", ".join(f"process {index} on {host}" for index, host in hosts.items())
