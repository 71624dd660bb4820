"""What a run says of its steps."""

from nivp_dist.monitoring import findings
from nivp_dist.monitoring.signatures import ENOUGH


def test_a_finding_is_an_event_of_its_own_kind_and_comes_once(runs, monkeypatch):
    """With a limit of zero every run is bound by stability."""
    monkeypatch.setattr(findings, "AT_STABILITY_LIMIT", 0.0)
    ran = runs.run()
    assert len(ran.metrics) >= ENOUGH
    found = [message for kind, message in ran.events if kind == "finding"]
    assert len(found) == 1 and found[0].startswith("steps are bound by stability")
    assert not any("bound by" in message for kind, message in ran.events if kind == "warning")
