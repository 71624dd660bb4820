"""Callbacks from settings: classes of the user's file by their names, and the ready-made ones."""

from collections.abc import Sequence
from pathlib import Path

from nivp_dist.callbacks import trackers
from nivp_dist.callbacks.callback import Callback
from nivp_dist.errors import InputError
from nivp_dist.problems.base import Problem
from nivp_dist.problems.loading import first_line, load_module, place_of
from nivp_dist.problems.user_classes import class_in, file_of, instance, own_classes
from nivp_dist.settings.keys import nearest
from nivp_dist.settings.model import CallbackSettings

SHIPPED: dict[str, type[Callback]] = {
    cls.__name__: cls for cls in (trackers.Conserved, trackers.LivePicture, trackers.Probes, trackers.SteadyState)
}
KEY = "callbacks.classes"


def load(settings: CallbackSettings) -> list[Callback]:
    """The callbacks that the settings name, in their order, with their parameters validated and set.

    A name is that of a class in callbacks.file, or else of a ready-made one. Raises InputError: an unknown class or
    parameter (the message has the nearest known one), a parameter of the wrong type or out of range, or an exception
    in the user's file (the message has file and line).
    """
    if not settings.classes:
        return []
    path = Path(settings.file or "")
    module = load_module(path, "callbacks") if settings.file is not None else None
    found = []
    for name in settings.classes:
        if module is not None and (name in own_classes(module) or name not in SHIPPED):
            cls, source = class_in(module, name, path, Callback, KEY), str(path)
        else:
            cls, source = _shipped(name), f"callback {name}"
        found.append(instance(cls, settings.parameters.get(name, {}), source, f"callbacks.parameters.{name}"))
    return found


def require_callbacks(callbacks: object) -> None:
    """Raises InputError unless these are a list of instances of Callback classes."""
    if not isinstance(callbacks, list | tuple):
        raise InputError(f"callbacks must be a list of callbacks, got {callbacks!r}: callbacks=[MyCallback(...)]")
    for one in callbacks:
        if not isinstance(one, Callback):
            raise InputError(f"callbacks has {one!r}, which is no instance of a Callback class")


def check(callbacks: Sequence[Callback], problem: Problem) -> None:
    """Let the callbacks look at the problem before anything is compiled. Raises InputError for any exception."""
    for one in callbacks:
        try:
            one.check(problem)
        except Exception as error:  # noqa: BLE001  code of users can raise anything
            name, place = type(one).__name__, place_of(error, file_of(type(one)))
            where = f"{place}: " if place and name not in SHIPPED else ""
            text = str(error) if isinstance(error, InputError | ValueError) else first_line(error)
            raise InputError(f"{where}callback {name}: {text}") from None


def _shipped(name: str) -> type[Callback]:
    if name not in SHIPPED:
        close = nearest(name, SHIPPED)
        hint = f"the nearest is {close}" if close else f"there are {', '.join(SHIPPED)}"
        raise InputError(f"{KEY}: there is no ready-made callback '{name}'; {hint}; for your own set callbacks.file")
    return SHIPPED[name]
