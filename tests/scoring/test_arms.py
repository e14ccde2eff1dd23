"""Several models on one stream: each vehicle as its own model alone would score it."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scoring_bundles import small_bundle, window_bundle
from scoring_columns import EPOCH_MS, Message, columns_of
from stream_course import SICK, SOUND, course, message

from schemas.errors import ContractError
from scoring.alerts import OpenAlert, Transition
from scoring.arms import ArmedScored, ArmedScorer
from scoring.bundle import Bundle, FeatureKind, FeatureSpec
from scoring.lineup import Lane, Lineup
from scoring.stream import StreamScorer
from scoring.traffic import CHAMPION, Arm, Experiment, Guards, Mode, Splitter

VEHICLES = [b"car-%d" % i for i in range(4)]
NEARLY = tuple(1.01 * value for value in SOUND)
OFF = Guards(min_alerts=10**9)


def bundle_of(version: str, threshold: float | None = None, *, lag: bool = False) -> Bundle:
    bundle = small_bundle()
    manifest = replace(bundle.manifest, version=version)
    if threshold is not None:
        manifest = replace(manifest, threshold=threshold)
    if lag:
        features = list(manifest.features)
        features[7] = FeatureSpec("coolant_temperature", FeatureKind.LAG, 30.0)
        manifest = replace(manifest, features=tuple(features))
    return Bundle(manifest, bundle.model)


def lineup_of(
    weight: float,
    champion: Bundle | None = None,
    arm: Bundle | None = None,
    *,
    mode: Mode = Mode.AB,
    guards: Guards = OFF,
    salt: str = "salt",
) -> Lineup:
    """The arm 'new' with that weight, and the champion with the rest."""
    lanes = [
        Lane(CHAMPION, champion or bundle_of("1")),
        Lane("new", arm or bundle_of("2", lag=True)),
    ]
    arms = [Arm(CHAMPION, "1", 1 - weight), Arm("new", "2", weight)]
    if mode is Mode.SHADOW:
        lanes, arms = lanes[1:], arms[1:]
    return Lineup(tuple(lanes), Experiment("e", mode, salt, 0, tuple(arms), guards=guards))


def armed_of(lineup: Lineup, *, max_vehicles: int = 8) -> ArmedScorer:
    return ArmedScorer(lineup, max_vehicles=max_vehicles, origin="EDGE")


def process(
    scorer: ArmedScorer, messages: Sequence[Message], *, replay: bool = False
) -> ArmedScored:
    return scorer.process(columns_of(messages, scorer.signals), now_ms=EPOCH_MS, replay=replay)


def in_cuts(
    scorer: ArmedScorer, messages: Sequence[Message], cuts: Sequence[int]
) -> tuple[bytes, list[Transition]]:
    edges = sorted({0, len(messages), *(cut % (len(messages) + 1) for cut in cuts)})
    scores: list[bytes] = []
    transitions: list[Transition] = []
    for a, b in pairwise(edges):
        scored = process(scorer, messages[a:b]).scored
        scores.append(scored.scores.tobytes())
        transitions += [replace(t, message=t.message + a) for t in scored.transitions]
    return b"".join(scores), transitions


def alone(bundle: Bundle, messages: Sequence[Message]) -> tuple[list[bytes], list[Transition]]:
    """Scores of each message, and all transitions, of one model on its own."""
    scorer = StreamScorer(bundle, max_vehicles=8, origin="EDGE")
    columns = columns_of(messages, scorer.signals)
    scored = scorer.process(columns, now_ms=EPOCH_MS)
    parts = np.split(scored.scores, columns.starts[1:])
    return [part.tobytes() for part in parts], scored.transitions


def lstm_of(version: str) -> Bundle:
    bundle = window_bundle()
    return Bundle(replace(bundle.manifest, version=version), bundle.model)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(0, 300), max_size=12),
    kinds=st.sampled_from(["points", "windows-on-trial", "windows-replaced"]),
)
def test_each_vehicle_is_scored_as_by_its_own_model_alone(
    seed: int, cuts: list[int], kinds: str
) -> None:
    messages = course(seed, 150)
    lineup = {
        "points": lineup_of(0.5),
        "windows-on-trial": lineup_of(0.5, arm=lstm_of("2")),
        "windows-replaced": lineup_of(0.5, lstm_of("1")),
    }[kinds]
    assert lineup.experiment is not None
    splitter = Splitter(lineup.experiment)
    scores, transitions = in_cuts(armed_of(lineup), messages, cuts)
    expected: list[bytes] = [b""] * len(messages)
    wanted: list[Transition] = []
    lanes = [
        lineup.lane_of(splitter.arms[i].name)
        for i in splitter.choose([m.vehicle for m in messages])
    ]
    for number, lane in enumerate(lineup.lanes):
        mine = [i for i, its in enumerate(lanes) if its == number]
        found, changes = alone(lane.bundle, [messages[i] for i in mine])
        for i, bits in zip(mine, found, strict=True):
            expected[i] = bits
        wanted += [replace(t, message=mine[t.message]) for t in changes]
    assert scores == b"".join(expected)
    assert transitions == sorted(wanted, key=lambda t: (t.message, t.reading_index))


def test_every_message_knows_its_lane() -> None:
    lineup = lineup_of(0.5)
    scored = process(armed_of(lineup), [message(1, [SOUND], vehicle=v) for v in VEHICLES])
    assert lineup.experiment is not None
    splitter = Splitter(lineup.experiment)
    names = [splitter.arms[i].name for i in splitter.choose(VEHICLES)]
    assert [scored.lane(i).arm for i in range(4)] == names
    assert set(names) == {CHAMPION, "new"}
    found = {
        part.lane.arm: [] if part.messages is None else part.messages.tolist()
        for part in scored.parts
    }
    assert found == {name: [i for i in range(4) if names[i] == name] for name in set(names)}


def test_without_an_experiment_it_is_the_stream_scorer() -> None:
    messages = course(9, 100)
    scored = process(armed_of(Lineup((Lane(CHAMPION, bundle_of("1")),))), messages)
    scores, transitions = alone(bundle_of("1"), messages)
    assert scored.scored.scores.tobytes() == b"".join(scores)
    assert scored.scored.transitions == transitions
    assert scored.lane_of is None
    assert scored.lane(3).arm == CHAMPION
    (part,) = scored.parts
    assert (part.lane.arm, part.messages, part.scored) == (CHAMPION, None, scored.scored)


def changed(scorer: ArmedScorer, lineup: Lineup, seen: Sequence[Message]) -> None:
    """What a scoring loop does when `take` asks for it."""
    held = scorer.open_alerts
    assert scorer.take(lineup)
    restart(scorer, seen, held)


def restart(scorer: ArmedScorer, seen: Sequence[Message], held: dict[bytes, OpenAlert]) -> None:
    scorer.drop_all()
    for vehicle_id, alert in held.items():
        scorer.restore_open(vehicle_id, alert)
    assert process(scorer, seen, replay=True).scored.transitions == []


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    before=st.sampled_from([0.0, 0.3, 1.0]),
    after=st.sampled_from([0.5, 0.8]),
    at=st.integers(1, 149),
)
def test_after_a_change_of_traffic_it_is_as_one_started_with_the_new(
    seed: int, before: float, after: float, at: int
) -> None:
    messages = course(seed, 150)
    scorer = armed_of(lineup_of(before))
    process(scorer, messages[:at])
    held = scorer.open_alerts
    changed(scorer, lineup_of(after), messages[:at])
    fresh = armed_of(lineup_of(after))
    restart(fresh, messages[:at], held)
    assert in_cuts(scorer, messages[at:], []) == in_cuts(fresh, messages[at:], [])
    assert scorer.open_alerts == fresh.open_alerts


def test_an_alert_of_an_arm_closes_when_the_champion_finds_nothing() -> None:
    """And stays when it does."""
    nervous = bundle_of("2", threshold=1e-6)
    scorer = armed_of(lineup_of(1.0, arm=nervous))
    seen = [message(1, [NEARLY] * 10, vehicle=b"sound"), message(1, [SICK] * 10, vehicle=b"sick")]
    assert len(process(scorer, seen).scored.transitions) == 2
    changed(scorer, Lineup((Lane(CHAMPION, bundle_of("1")),)), seen)
    assert set(scorer.open_alerts) == {b"sound", b"sick"}
    after = [message(2, [NEARLY] * 10, vehicle=b"sound"), message(2, [SICK] * 10, vehicle=b"sick")]
    (closed,) = process(scorer, after).scored.transitions
    assert (closed.state, closed.vehicle_id, closed.reading_index) == ("CLOSED", b"sound", 0)


def test_a_new_version_of_an_arm_takes_over_without_a_rebuild() -> None:
    scorer = armed_of(lineup_of(0.5, arm=bundle_of("2")))
    messages = course(5, 120)
    process(scorer, messages[:60])
    assert not scorer.take(lineup_of(0.5, arm=bundle_of("3", threshold=1000.0)))
    assert [lane.bundle.manifest.version for lane in scorer.lineup.lanes] == ["1", "3"]
    found, _ = in_cuts(scorer, messages[60:], [])
    whole, _ = in_cuts(armed_of(lineup_of(0.5, arm=bundle_of("3", threshold=1000.0))), messages, [])
    assert whole.endswith(found)
    assert scorer.take(lineup_of(0.5, arm=bundle_of("4", lag=True)))


@pytest.mark.parametrize("to_windows", [True, False])
def test_an_arm_that_becomes_another_kind_of_model_wants_the_history_again(
    to_windows: bool,
) -> None:
    messages = course(5, 120)
    old, new = bundle_of("2"), lstm_of("3")
    if not to_windows:
        old, new = new, old
    scorer = armed_of(lineup_of(0.5, arm=old))
    process(scorer, messages[:60])
    held = scorer.open_alerts
    changed(scorer, lineup_of(0.5, arm=new), messages[:60])
    fresh = armed_of(lineup_of(0.5, arm=new))
    restart(fresh, messages[:60], held)
    assert in_cuts(scorer, messages[60:], [3, 17]) == in_cuts(fresh, messages[60:], [])


def test_a_lineup_that_cannot_be_used_changes_nothing() -> None:
    scorer = armed_of(lineup_of(0.5))
    torn = Bundle(bundle_of("3").manifest, b"torn")
    with pytest.raises(ContractError):
        scorer.take(lineup_of(0.5, arm=torn))
    with pytest.raises(ContractError):
        scorer.take(lineup_of(0.7, arm=torn))
    assert scorer.lineup == lineup_of(0.5)
    assert process(scorer, [message(1, [SOUND], vehicle=v) for v in VEHICLES]).lane_of is not None


def test_a_shadow_scores_its_share_alone() -> None:
    lineup = lineup_of(0.5, mode=Mode.SHADOW)
    assert lineup.experiment is not None
    splitter = Splitter(lineup.experiment)
    messages = course(6, 100)
    chosen = splitter.choose([m.vehicle for m in messages])
    mine = [m for m, arm in zip(messages, chosen, strict=True) if arm == 0]
    assert 0 < len(mine) < len(messages)
    scorer = armed_of(lineup)
    scored = process(scorer, messages)
    scores, transitions = alone(bundle_of("2", lag=True), mine)
    assert scored.scored.scores.tobytes() == b"".join(scores)
    assert scored.scored.transitions == transitions
    assert scored.columns.index.tolist() == np.flatnonzero(chosen == 0).tolist()
    stranger = next(v for v in VEHICLES if splitter.choose([v])[0] == -1)
    scorer.restore_open(stranger, OpenAlert("x", 0))
    assert stranger not in scorer.open_alerts


def test_signals_are_those_of_all_lanes() -> None:
    manifest = bundle_of("2").manifest
    features = list(manifest.features)
    features[0] = FeatureSpec("intake_temp")
    other = Bundle(replace(manifest, features=tuple(features), units=()), small_bundle().model)
    scorer = armed_of(lineup_of(0.5, arm=other))
    assert set(scorer.signals) > {"intake_temp", "coolant_temperature"}
    assert len(set(scorer.signals)) == len(scorer.signals)


def fleet(vehicles: int, seq: int, rng: np.random.Generator) -> list[Message]:
    """Ten sound readings of each vehicle."""
    rows = np.array(SOUND) * rng.normal(1.0, 0.005, (vehicles, 10, 5))
    return [message(seq, rows[v].tolist(), vehicle=b"car-%05d" % v) for v in range(vehicles)]


def test_a_canary_with_a_bad_model_raises_a_handful_of_alerts_and_disturbs_nobody_else() -> None:
    rng = np.random.default_rng(2)
    print("seed 2")
    bad = bundle_of("2", threshold=1e-6)
    guarded = armed_of(
        lineup_of(0.1, arm=bad, mode=Mode.CANARY, guards=Guards()), max_vehicles=4000
    )
    undisturbed = StreamScorer(bundle_of("1"), max_vehicles=4000, origin="EDGE")
    opened, held, trips = 0, 0, 0
    for seq in range(1, 4):
        poll = fleet(3000, seq, rng)
        scored = process(guarded, poll)
        alone = undisturbed.process(columns_of(poll, undisturbed.signals), now_ms=EPOCH_MS)
        champions = np.repeat(scored.lane_of == 0, 10)
        np.testing.assert_array_equal(scored.scored.scores[champions], alone.scores[champions])
        opened += sum(t.state == "OPEN" for t in scored.scored.transitions)
        held += scored.held
        trips += len(scored.trips)
        assert [t for t in scored.scored.transitions if scored.lane(t.message).arm == CHAMPION] == [
            t for t in alone.transitions if scored.lane(t.message).arm == CHAMPION
        ]
    assert opened <= 10
    assert trips == 1
    assert held > 200
    # The loop gives the vehicles back, and all is as if there had been no canary.
    guarded.sideline({"new"})
    guarded.drop_all()
    again = process(guarded, fleet(3000, 4, rng))
    assert {part.lane.arm for part in again.parts} == {CHAMPION}
    assert (again.held, again.trips) == (0, ())
