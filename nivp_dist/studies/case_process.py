"""The process of one case:  python -m nivp_dist.studies.case_process NAME CASE FOLDER [quick] [cores ...]

It takes the measurement, and prints the record as the last line of its output, one line of JSON.
"""

import json
import os
import signal
import sys
from pathlib import Path


def main(arguments: list[str]) -> None:
    """Bind the process to its cores before jax is imported, measure, print. Exits with a line where that fails."""
    wanted = json.loads(arguments[0])
    if wanted["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, wanted["cores"])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run of the case is stopped with a checkpoint

    from nivp_dist.errors import InputError, RunFailed
    from nivp_dist.storage.metrics import plain
    from nivp_dist.studies import registry

    study = registry.find(wanted["study"])
    (case,) = (case for case in study.cases(wanted["quick"]) if case.name == wanted["case"])
    try:
        record = case.measure(Path(wanted["folder"]))
    except (InputError, RunFailed) as error:
        sys.exit(" ".join(str(error).split()))
    print(json.dumps(plain(record), allow_nan=False), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
