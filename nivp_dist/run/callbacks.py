"""The callbacks of a run: when they are called, what they add to it, and what becomes of their mistakes.

Process 0 alone calls them. What they want of the run travels with the decisions of process 0 (``cluster.control``), so
that the other processes need not know of it: numbers go into files that process 0 writes, and a stop is one of its
commands. They compute with programs of process 0 that send nothing, in a run of several processes on its CPU: XLA tunes
a program for GPUs in all processes together, and process 0 would wait for those that do not compile it.
"""

import copy
import json
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from nivp_dist.callbacks import Callback
from nivp_dist.callbacks.loading import load
from nivp_dist.cluster import session
from nivp_dist.cluster.control import Control, from_process_zero
from nivp_dist.errors import InputError
from nivp_dist.problems.loading import first_line, place_of
from nivp_dist.problems.user_classes import file_of
from nivp_dist.run.simulation import Simulation
from nivp_dist.run.view import Moment, StateView
from nivp_dist.settings.model import CallbackSettings
from nivp_dist.storage.metrics import RECORDED, plain


class Kept(NamedTuple):
    """What a checkpoint holds of one callback.

    memory: its own. asked: the moments whose last call asked for a stop. The next call there does not stop the run
    again, or a resumed run could not go on.
    """

    memory: dict = {}
    asked: list[str] = []


def names_of(callbacks: Sequence[Callback]) -> dict[str, Callback]:
    """The callbacks by names that are the same in every start of the run: Probes, Probes-2, ..."""
    named: dict[str, Callback] = {}
    for one in callbacks:
        name = type(one).__name__
        number = sum(type(other).__name__ == name for other in named.values()) + 1
        named[name if number == 1 else f"{name}-{number}"] = one
    return named


class Callbacks:
    """The callbacks of one run. Every process has this object, and process 0 those in it.

    Args:
        settings: the classes that the configuration names. given: the instances of a Python session.
        kept: name -> ``Kept``, as plain JSON: a checkpoint stores it, and a resume fills it before the first call.
        Entries of callbacks that this start of the run does not have are kept for a later one.

    Raises InputError, on every process, as ``callbacks.loading.load``. Collective.
    """

    def __init__(
        self,
        settings: CallbackSettings,
        given: Sequence[Callback],
        simulation: Simulation,
        directory: Path,
        kept: dict[str, list],
    ):
        self._simulation, self._directory, self._kept = simulation, directory, kept
        self._callbacks: dict[str, Callback] = {}

        def make() -> str:
            self._callbacks = names_of([*load(settings), *given])
            if self._callbacks:
                device_of_callbacks()
            return "some" if self._callbacks else ""

        self._active = from_process_zero(make) == "some"
        self._begun: set[str] = set()

    def call(self, moment: Moment, control: Control, warn: Callable[[str], None]) -> dict[str, float]:
        """Call the method of that moment of every callback. Every process calls this.

        control: gets the reason of a stop. warn: called with a line about a callback that is switched off. Returns the
        numbers that the callbacks have recorded, by their names in metrics.jsonl.
        """
        if not self._active:
            return {}
        control.begin("callbacks")
        recorded: dict[str, float] = {}
        for name, callback in list(self._callbacks.items()):
            try:
                view = self._call_one(name, callback, moment, recorded)
            except Exception as error:  # noqa: BLE001  code of users can raise anything
                del self._callbacks[name]
                session.current().write_log(traceback.format_exc())
                warn(f"{_described(error, callback, moment.name)}; this callback is switched off, and the run goes on")
                continue
            recorded |= view.recorded
            if view.wanted_stop:
                wanted = f"{type(callback).__name__}: {' '.join(view.wanted_stop.split())}"
                control.event = f"{control.event}; {wanted}" if control.event else wanted
        return {f"{RECORDED}{name}": value for name, value in recorded.items()}

    def _call_one(self, name: str, callback: Callback, moment: Moment, recorded: dict[str, float]) -> StateView:
        kept = Kept(*self._kept.get(name, ()))
        if name not in self._begun:
            vars(callback)["memory"] = copy.deepcopy(kept.memory)
            self._begun.add(name)
        view = StateView(moment, self._simulation, self._directory, recorded)
        with jax.default_device(device_of_callbacks()):
            getattr(callback, moment.name)(view)
        asked = [other for other in kept.asked if other != moment.name]
        if view.wanted_stop:
            asked.append(moment.name)
            if moment.name in kept.asked:
                view.wanted_stop = ""
        # A copy by JSON, which the callback cannot change any more. What JSON cannot hold is a mistake of the callback.
        self._kept[name] = json.loads(json.dumps(Kept(plain(callback.memory), asked)))
        return view


def device_of_callbacks() -> Any:
    """The device on which process 0 computes for callbacks; None: where it computes anything else.

    Raises InputError if several processes have GPUs, and no CPU.
    """
    if jax.process_count() == 1 or jax.default_backend() == "cpu":
        return None
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:
        raise InputError(
            "environment: with several processes callbacks compute on the CPU of process 0, and JAX_PLATFORMS excludes "
            "it: set JAX_PLATFORMS=cuda,cpu, or unset it"
        ) from None


def _described(error: Exception, callback: Callback, method: str) -> str:
    """File and line, class and method, and the error."""
    cls = type(callback)
    place = place_of(error, file_of(cls))
    text = str(error) if isinstance(error, InputError) else first_line(error)
    return f"{place}: {cls.__name__}.{method}: {text}" if place else f"{cls.__name__}.{method}: {text}"
