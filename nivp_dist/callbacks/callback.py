"""The base class of callbacks.

    class Extinction(Callback):
        level: float = 1e-3

        def after_step(self, view):
            largest = abs(view.solution(X)).max()
            view.record("largest", largest)
            if largest < self.level:
                view.stop(f"|u| has fallen below {self.level:g}")

Annotated class attributes are parameters, as those of a ``Problem``. They are set under
``[callbacks.parameters.Extinction]`` of a configuration, or in Python as ``Extinction(level=1e-2)``.
"""

import dataclasses
from typing import Any, ClassVar, dataclass_transform

from nivp_dist.callbacks.view import RunView
from nivp_dist.problems.base import Problem


@dataclass_transform(kw_only_default=True, field_specifiers=(dataclasses.field,))
class Callback:
    """A class whose methods a run calls while it goes. A subclass defines any of the methods below.

    Process 0 alone calls them, so that a callback may read clocks, draw random numbers and write files. It cannot
    change the run: with and without callbacks a run has the same bits.

    An exception in a method switches that callback off until the run is resumed. A warning names file, class and line,
    and the run goes on.

    Attributes:
        memory: a dictionary of what the callback has to remember, in values that JSON can hold. It is stored in every
            checkpoint, so that a resumed run has it as it was. Other attributes are lost when the run stops.
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field]]  # every subclass has it

    memory: ClassVar[dict[str, Any]]  # set for each instance; for dataclasses a ClassVar is no parameter

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        dataclasses.dataclass(kw_only=True, eq=False)(cls)

    def __new__(cls, *arguments, **keywords):
        self = super().__new__(cls)
        vars(self)["memory"] = {}
        return self

    def check(self, problem: Problem) -> None:
        """Called in every process before the run starts. Raises ValueError, which refuses the run, if the parameters
        do not suit the problem."""

    def after_fit(self, view: RunView) -> None:
        """The initial fit, or a refit, has ended: of a refit also when it was refused, and the old network stays."""

    def after_step(self, view: RunView) -> None:
        """A step was accepted. Numbers that ``view.record`` takes stand in its line of metrics.jsonl."""

    def at_output(self, view: RunView) -> None:
        """An output time was reached, and its snapshot is written."""

    def at_end(self, view: RunView) -> None:
        """The run is about to save its last checkpoint: it has finished, or it stops (``view.reason``)."""


MOMENTS = ("after_fit", "after_step", "at_output", "at_end")
