"""The process of one case:  python -m nivp_dist.studies.case_process '{"module": "nivp_dist.studies.scaling", ...}'

It takes the measurement, and writes the record into RECORD in the folder of the case.
"""

import importlib
import json
import os
import signal
import sys
from pathlib import Path

RECORD = "record.json"


def main(argument: str) -> None:
    """Bind the process to its cores before jax is imported, and measure. Exits with a line where that fails.

    argument: JSON with the "module" of the study, the name of the "case", "quick", the "folder" of the case, "cores".
    """
    wanted = json.loads(argument)
    if wanted["cores"] and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, wanted["cores"])
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a run of the case is stopped with a checkpoint

    from nivp_dist.errors import InputError, RunFailed
    from nivp_dist.storage.files import write_whole
    from nivp_dist.storage.metrics import plain

    study, folder = importlib.import_module(wanted["module"]).STUDY, Path(wanted["folder"])
    (case,) = (case for case in study.cases(wanted["quick"]) if case.name == wanted["case"])
    try:
        record = case.measure(folder)
    except (InputError, RunFailed) as error:
        sys.exit(" ".join(str(error).split()))
    write_whole(folder / RECORD, json.dumps(plain(record), allow_nan=False))


if __name__ == "__main__":
    main(sys.argv[1])
