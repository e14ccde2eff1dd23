"""The monitor: from counts, alerts and labels to events, and to what a model is used for.

    model.stats ──────────────────┐
    vehicle.alerts (and .shadow) ─┤   state (pure)        loop (shell)
    vehicle.labels ───────────────┼─► drift, joining,  ─► model.events
    releases and traffic ─────────┤   roster, guards,     model.traffic
    model.events ─────────────────┘   sequential          metrics

All is decided by pure functions of what came in and of the time. What a monitor knows it reads
from the log again after a start, as far back as its settings say. Of several monitors one acts,
the member of their group that has the one partition of `model.stats`; and a change of traffic is
made from its newest state, so that what was decided already is not decided again.
"""
