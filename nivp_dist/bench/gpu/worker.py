"""The process of one stage:  python -m nivp_dist.bench.gpu.worker REQUEST

REQUEST is a ``stages.Request`` as JSON. The process writes one JSON object a line: first {"planned": [names]}, then one
for each measurement as soon as it is known. A measurement that raises has an "error" in place of results, and those
after it are still made.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import cast

import jax

from nivp_dist.bench.gpu import accuracy, evaluation, facts, rates, same_bits
from nivp_dist.bench.gpu.evaluation import Evaluation
from nivp_dist.bench.gpu.sizes import FULL, QUICK, Size
from nivp_dist.bench.gpu.stages import Plan, Request
from nivp_dist.cluster import session
from nivp_dist.settings.model import ClusterSettings, Precision
from nivp_dist.storage.metrics import plain

ERROR_LENGTH = 300  # characters: messages about memory list every array


def plan(request: Request) -> Plan:
    """The measurements of a stage. It starts jax, except for stages that do so themselves."""
    if request.stage == "machine":
        return facts.plan()
    if request.stage == "same bits":
        return same_bits.plan(_new(Path(request.folder) / "runs"))
    size = _start(request)
    name, _, precision = request.stage.partition(" ")
    if name == "evaluation":
        return evaluation.plan(Evaluation(size, cast(Precision, precision)))
    if name == "trace":
        return evaluation.trace_plan(Evaluation(size, evaluation.TRACED), Path(request.trace))
    if name == "accuracy":
        return accuracy.plan()
    return {"rates": rates.rates, "products": rates.products}[name](size)


def measure(measurements: Plan, write: Callable[[dict], None]) -> None:
    """Make the measurements, and write each of them."""
    write({"planned": [name for name, _ in measurements]})
    for name, call in measurements:
        started = time.perf_counter()
        try:
            found = call()
        except Exception as error:  # noqa: BLE001  whatever a library or the GPU raises must not end the stage
            traceback.print_exc()
            found = {"error": f"{type(error).__name__}: {error}"[:ERROR_LENGTH]}
        write({"measurement": name} | found | {"wall_seconds": round(time.perf_counter() - started, 3)})


def _start(request: Request) -> Size:
    """Start jax with the cache of all stages. Returns the sizes for its devices."""
    cache = _new(Path(request.folder) / "compiled")
    session.connect(ClusterSettings(compilation_cache=str(cache)), check=False)
    return QUICK if request.quick or jax.default_backend() == "cpu" else FULL


def _new(folder: Path) -> Path:
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder


def main(argument: str) -> None:
    # What libraries print goes to the log, so that the lines of JSON are alone in the pipe.
    with os.fdopen(os.dup(1), "w") as pipe:
        os.dup2(2, 1)
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would hide how long this package compiles
        write = lambda record: print(json.dumps(plain(record), allow_nan=False), file=pipe, flush=True)  # noqa: E731
        measure(plan(Request(**json.loads(argument))), write)


if __name__ == "__main__":
    main(sys.argv[1])
