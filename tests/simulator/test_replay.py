"""Recorded drives, from the file to batches."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from schemas.errors import SettingsError
from schemas.signals import SIGNAL_NAMES
from simulator.measured import Fault, Measured
from simulator.recordings import COLUMNS, read_trips
from simulator.replay import ReplayedFleet
from simulator.settings import SimulatorSettings

HEADER = "trip,t_s,gap,rpm,speed_kmh,ecu_v,unknown,label,fault"
START_MS = 1_700_000_000_000
BUNDLED = Path(__file__).parents[2] / "simulator" / "data" / "kit_normal_small.csv.gz"


def write(path: Path, *rows: str, header: str = HEADER) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", "utf-8")
    return path


def play(fleet: ReplayedFleet, ticks: int = 10_000) -> tuple[list[Measured], list[Fault]]:
    """Every batch, and every fault that the recording labels."""
    batches, faults = [], []
    for number in range(ticks):
        measured = fleet.tick(number, START_MS)
        if measured is None:
            break
        batches.append(measured)
        faults += fleet.recorded_faults()
    return batches, faults


def column(measured: list[Measured], name: str) -> list[float]:
    return [float(v) for m in measured for v in m.values[:, SIGNAL_NAMES.index(name)]]


def test_columns_gaps_and_empty_cells(tmp_path: Path) -> None:
    path = write(
        tmp_path / "drive.csv",
        "a b/c,0,0,800,0,13.5,7,0,",
        "a b/c,1,1,999,1,13.5,7,0,",
        "a b/c,2,0,900,,13.6,7,0,",
        "other,5,0,700,3,12.1,7,0,",
    )
    trips = read_trips(path)
    assert [trip.vehicle_id for trip in trips] == ["a-b-c", "other"]
    assert trips[0].t_s.tolist() == [0.0, 2.0]
    assert trips[0].values[:, SIGNAL_NAMES.index("engine_speed")].tolist() == [800.0, 900.0]
    speed = trips[0].values[:, SIGNAL_NAMES.index("speed")]
    assert speed[0] == 0.0
    assert np.isnan(speed[1])
    present = ~np.isnan(trips[0].values).all(axis=0)
    assert {n for n, here in zip(SIGNAL_NAMES, present, strict=True) if here} == {
        "engine_speed",
        "speed",
        "low_voltage",
    }


def test_every_column_of_the_table_is_a_signal() -> None:
    assert set(COLUMNS.values()) <= set(SIGNAL_NAMES)


def test_values_are_never_altered(tmp_path: Path) -> None:
    path = write(tmp_path / "drive.csv", "t,0,0,99999,-5,13.5,7,0,", "t,1,0,1,2,13,7,0,")
    batches, _ = play(ReplayedFleet(SimulatorSettings(), read_trips(path)))
    assert column(batches, "engine_speed") == [99_999.0, 1.0]
    assert column(batches, "speed") == [-5.0, 2.0]


@pytest.mark.parametrize("speed", [0.5, 1.0, 7.0, 5_000.0])
def test_all_rows_come_once_in_order_at_their_own_spacing(tmp_path: Path, speed: float) -> None:
    rows = [f"t,{2 * n},0,{n},0,13.5,7,0," for n in range(700)]
    fleet = ReplayedFleet(
        SimulatorSettings(speed=speed), read_trips(write(tmp_path / "drive.csv", *rows))
    )
    batches, _ = play(fleet)
    assert column(batches, "engine_speed") == list(range(700))
    events = np.concatenate([m.event_time_ms for m in batches])
    assert set(np.diff(events).tolist()) == {2_000}
    assert max(int(m.counts.max(initial=0)) for m in batches) <= 500
    uptime = [int(ms) for m in batches for ms in m.uptime_ms]
    firsts = [int(m.event_time_ms[0]) for m in batches if len(m.event_time_ms)]
    assert len({u - e for u, e in zip(uptime, firsts, strict=True)}) == 1


def test_labels_become_faults(tmp_path: Path) -> None:
    rows = [f"t,{n},0,{n},0,13.5,7,{int(10 <= n < 20)},misfire" for n in range(40)]
    fleet = ReplayedFleet(
        SimulatorSettings(speed=6.0), read_trips(write(tmp_path / "drive.csv", *rows))
    )
    batches, faults = play(fleet)
    first_ms = int(batches[0].event_time_ms[0])
    assert [(f.vehicle, f.code) for f in faults] == [(0, "misfire")]
    assert faults[0].start_event_ms - first_ms == 10_000
    assert faults[0].end_event_ms is not None
    assert faults[0].end_event_ms - first_ms == 19_000


def test_faults_are_injected_into_recorded_drives() -> None:
    settings = SimulatorSettings(speed=20.0, fault_share=1.0, seed=3)
    sound, _ = play(ReplayedFleet(settings, read_trips(BUNDLED)), ticks=40)
    fleet = ReplayedFleet(settings, read_trips(BUNDLED))
    before, _ = play(fleet, ticks=20)
    faults = fleet.inject()
    after = [fleet.tick(number, START_MS) for number in range(20, 40)]
    assert len(faults) == len(fleet.vehicle_ids) == 3
    assert {f.code for f in faults} <= {
        "coolant_stuck",
        "coolant_offset",
        "thermostat_open",
        "maf_low",
        "manifold_leak",
        "engine_speed_noise",
        "throttle_stuck",
        "frozen_feed",
    }
    for one, other in zip(before, sound[:20], strict=True):
        assert np.array_equal(one.values, other.values, equal_nan=True)
    changed = [
        not np.array_equal(one.values, other.values, equal_nan=True)
        for one, other in zip(after, sound[20:], strict=True)
        if one is not None
    ]
    assert any(changed)
    assert all(f.start_event_ms >= int(before[-1].event_time_ms.max()) for f in faults)
    assert fleet.inject() == [], "every trip is faulty already"


def test_the_bundled_recording_plays_to_its_end() -> None:
    trips = read_trips(BUNDLED)
    batches, _ = play(ReplayedFleet(SimulatorSettings(speed=200.0), trips))
    assert len(trips) == 3
    assert sum(int(m.counts.sum()) for m in batches) == sum(len(t.t_s) for t in trips) == 7_565


def test_compressed_or_not(tmp_path: Path) -> None:
    plain = write(tmp_path / "drive.csv", "t,0,0,800,0,13.5,7,0,")
    packed = tmp_path / "drive.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_trips(plain)[0].t_s.tolist() == read_trips(packed)[0].t_s.tolist()


def test_what_is_no_recording_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        read_trips(tmp_path / "missing.csv")
    with pytest.raises(SettingsError, match="has the columns trip, t_s"):
        read_trips(write(tmp_path / "wrong.csv", "1,2", header="x,y"))
    with pytest.raises(SettingsError, match="could not convert"):
        read_trips(write(tmp_path / "text.csv", "t,0,0,fast,0,13.5,7,0,"))
    with pytest.raises(SettingsError, match="does not rise"):
        read_trips(write(tmp_path / "back.csv", "t,1,0,1,0,1,7,0,", "t,0,0,1,0,1,7,0,"))
