"""What may stand behind `--model`, and what is said of everything else."""

import pytest

from cloud.deployment import DEFAULT_MODEL, Deployment, Kind
from cloud.settings import ScorerSettings
from schemas.errors import SettingsError
from scoring.model_ref import ModelRef


@pytest.mark.parametrize(
    ("spec", "kind", "ref", "target"),
    [
        ("embedded:anomaly", Kind.EMBEDDED, ModelRef("anomaly"), ""),
        ("embedded:anomaly@20261124-1200", Kind.EMBEDDED, ModelRef("anomaly", "20261124-1200"), ""),
        ("rpc://host:8001/anomaly", Kind.RPC, ModelRef("anomaly"), "host:8001"),
        ("rpcs://host:8001/a@challenger", Kind.RPC, ModelRef("a", "challenger"), "host:8001"),
        ("rpc+http://[::1]:80/a.b-c_d", Kind.RPC, ModelRef("a.b-c_d"), "[::1]:80"),
        ("rpc+https://10.0.0.1:443/a", Kind.RPC, ModelRef("a"), "10.0.0.1:443"),
        ("tfserving://host:8500/a", Kind.RPC, ModelRef("a"), "host:8500"),
        ("kafka://anomaly", Kind.KAFKA, ModelRef("anomaly"), ""),
        ("kafka://anomaly@champion", Kind.KAFKA, ModelRef("anomaly"), ""),
    ],
)
def test_a_spec_says_where_and_which(spec: str, kind: Kind, ref: ModelRef, target: str) -> None:
    found = Deployment.parse(spec)
    assert (found.kind, found.ref, found.target) == (kind, ref, target)


def test_options_follow_as_in_a_url() -> None:
    found = Deployment.parse("rpc+http://h:1/a?versions=off&timeout_s=0.5&binary=off&refused_s=3")
    assert not found.with_version
    assert found.binary is False
    assert (found.timeout_s, found.refused_s) == (0.5, 3.0)
    serving = Deployment.parse("tfserving://h:1/a?signature=other")
    assert (serving.signature, serving.with_version) == ("other", False)
    assert Deployment.parse("tfserving://h:1/a?versions=on").with_version
    plain = Deployment.parse("rpc://h:1/a")
    assert plain.with_version
    assert plain.binary is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "it may be embedded:NAME"),
        ("anomaly", "it may be embedded:NAME"),
        ("http://host:1/a", "rpc\\+http://HOST:PORT"),
        ("embedded:", "it may be"),
        ("embedded://anomaly", "it may be"),
        ("embedded:a@", "NAME@ALIAS"),
        ("embedded:a b", "'a b' is not a plain name"),
        ("embedded:a?timeout_s=1", "no option 'timeout_s' with embedded:; there are none"),
        ("rpc://host/a", "HOST:PORT is wanted, not 'host'"),
        ("rpc://host:99999/a", "out of range"),
        ("rpc://me@host:1/a", "HOST:PORT is wanted"),
        ("rpc://host:1/", "it may be"),
        ("rpc://host:1/a/b", "'a/b' is not a plain name"),
        ("rpc://host:1/a?version=off", "no option 'version'.*versions"),
        ("rpc://host:1/a?versions=no", "versions is 'no'; on or off"),
        ("rpc://host:1/a?timeout_s=soon", "timeout_s is 'soon'; 0.01 to 3600"),
        ("rpc://host:1/a?timeout_s=nan", "timeout_s is 'nan'"),
        ("kafka://anomaly/x", "it may be"),
        ("kafka:anomaly", "it may be"),
    ],
)
def test_what_does_not_read_so_is_refused_in_words(spec: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Deployment.parse(spec)


def test_the_scorers_setting_is_checked_when_it_is_read() -> None:
    assert ScorerSettings().model == DEFAULT_MODEL
    assert ScorerSettings().deployment.ref == ModelRef("anomaly")
    with pytest.raises(SettingsError, match="scorer model 'x'"):
        ScorerSettings(model="x")
