"""Equality of the timestamp parser with botocore's, for every string and number."""

from __future__ import annotations

import datetime as dt
import os
import time
from typing import TYPE_CHECKING, Any

import pytest
from botocore.utils import parse_timestamp as botocore_parse_timestamp
from hypothesis import example, given, settings
from hypothesis import strategies as st

from asyncauth._clients.parsing import timestamps
from asyncauth._clients.parsing.timestamps import parse_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.botocore

ZONES = [
    "UTC",
    "Europe/London",
    "America/New_York",
    "Asia/Shanghai",
    "Asia/Kathmandu",
    "Etc/GMT+3",
    "UTC3",  # a zone with the name UTC and another offset
    "UTC0DST",
]


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest) -> Iterator[str]:
    if not hasattr(time, "tzset"):
        pytest.skip("this platform cannot change its time zone")
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    try:
        yield request.param
    finally:
        if before is None:
            del os.environ["TZ"]
        else:
            os.environ["TZ"] = before
        time.tzset()


def outcome(parse: Callable[[Any], dt.datetime], value: Any) -> tuple[object, ...]:
    """Return all that a caller can observe: moment, wall time and zone, or the exception and its message."""
    try:
        parsed = parse(value)
        zone = parsed.tzinfo
        # isoformat() has the wall time, offset and microseconds, but not fold and the zone's name.
        return parsed.isoformat(), parsed.fold, type(zone), zone and zone.tzname(parsed)
    except Exception as error:
        return type(error), str(error)


two_digits = st.integers(0, 70).map("{:02d}".format)
years = st.one_of(st.integers(1969, 2040), st.integers(0, 9999)).map("{:04d}".format)
fractions = st.one_of(
    st.just(""), st.integers(0, 10**9).map(".{}".format), st.sampled_from([".", ",5", ".1.2", ".000"])
)
suffixes = st.sampled_from(["Z"] * 6 + ["", "z", "UTC", "GMT", "+00:00", "-0330", "+05:30", " Z", "ZZ", "+1Z"])
iso_stamps = st.builds(
    "{}-{}-{}{}{}:{}:{}{}{}".format,
    years,
    two_digits,
    two_digits,
    st.sampled_from(["T"] * 6 + ["t", " "]),
    two_digits,
    two_digits,
    two_digits,
    fractions,
    suffixes,
)
good_iso_stamps = st.datetimes().map(lambda moment: f"{moment.isoformat()}Z")
rfc_stamps = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "mon", "Foo"]),
    two_digits,
    st.sampled_from(["Jan", "Feb", "May", "Sep", "Dec", "dec", "June", "13"]),
    years,
    two_digits,
    two_digits,
    two_digits,
    st.sampled_from(["GMT"] * 4 + ["UTC", "Z", "+0000", "PST", ""]),
)
good_rfc_stamps = st.datetimes(min_value=dt.datetime(1000, 1, 1)).map(
    lambda moment: moment.strftime("%a, %d %b %Y %H:%M:%S GMT")
)
numbers = st.one_of(
    st.integers(-(10**12), 10**12),
    st.integers(),
    st.floats(),
    st.floats(0, 3e9),
    st.booleans(),
)
values = st.one_of(
    iso_stamps,
    good_iso_stamps,
    rfc_stamps,
    good_rfc_stamps,
    numbers,
    numbers.map(str),
    st.text("0123456789-:.TZ+ WGM\N{ARABIC-INDIC DIGIT ONE}", max_size=26),
    st.text(max_size=12),
    st.none(),
    st.binary(max_size=4),
)


@pytest.mark.filterwarnings("ignore::dateutil.parser.UnknownTimezoneWarning")
@given(value=values)
@settings(max_examples=1200, deadline=None)
@example(value="2026-01-31T08:00:00.000Z")
@example(value="2024-W01-1T00:00:00Z")
@example(value="2024-01-01T24:00:00Z")
@example(value="2024-06-30T23:59:60Z")
@example(value="0000-01-01T00:00:00Z")
@example(value="2024-01-01T00:00:00.1234567Z")
@example(value="\N{FULLWIDTH DIGIT TWO}024-01-01T00:00:00Z")
@example(value="2024-01-01T00:00:00Z\n")
@example(value="1_000")
@example(value="nan")
@example(value=float("inf"))
@example(value=1 << 70)
def test_any_value_is_parsed_or_refused_as_by_botocore(value: Any) -> None:
    """Every value gives botocore's moment, wall time, fold and kind of zone, or its exception with the same message."""
    expected = outcome(botocore_parse_timestamp, value)

    assert outcome(parse_timestamp, value) == expected
    assert outcome(parse_timestamp, value) == expected  # from the cache


@pytest.mark.parametrize(
    "value",
    [
        "2026-01-31T08:00:00Z",
        "2026-07-31T08:00:00.123Z",
        "0001-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "Sun, 02 Aug 2026 01:30:00 GMT",
        "1793000000",
        "1793000000.25",
        0,
        -62_135_596_800,
        253_402_300_799,
        1_793_000_000,
        1_793_500_200.75,
        1_792_900_000,
    ],
)
def test_zones_are_botocores_in_every_local_time_zone(zone: str, value: Any) -> None:
    """A change of the machine's time zone changes the results as it changes botocore's, also if the zone's name is
    UTC."""
    assert outcome(parse_timestamp, value) == outcome(botocore_parse_timestamp, value)


def test_a_common_timestamp_never_reaches_dateutil(monkeypatch: pytest.MonkeyPatch) -> None:
    """The formats that AWS sends are parsed without botocore's parser."""
    monkeypatch.setattr("asyncauth._clients.parsing.timestamps._botocore_parse_timestamp", None)

    assert parse_timestamp("2026-01-31T08:00:00.000Z").isoformat() == "2026-01-31T08:00:00+00:00"
    assert parse_timestamp("Sat, 31 Jan 2026 08:00:00 GMT").isoformat() == "2026-01-31T08:00:00+00:00"
    assert parse_timestamp(1_769_846_400).timestamp() == 1_769_846_400
    assert parse_timestamp("1769846400.5").timestamp() == 1_769_846_400.5


def test_the_cache_is_bounded() -> None:
    """The cache does not keep all of ten thousand different timestamps."""
    for second in range(10_000):
        parse_timestamp(second)

    assert len(timestamps._zones.seen) <= 4096
