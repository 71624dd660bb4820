"""Callbacks: classes that look at a run while it goes, those of the user and the ready-made ones."""

from nivp_dist.callbacks.callback import Callback
from nivp_dist.callbacks.trackers import Conserved, LivePicture, Probes, SteadyState
from nivp_dist.callbacks.view import RunView

__all__ = ["Callback", "Conserved", "LivePicture", "Probes", "RunView", "SteadyState"]
