"""Figures as Prometheus reads them: held against the parser of Prometheus' own Python client."""

from __future__ import annotations

import gc
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from p2plearn.monitoring.exposition import Family, Sample, render
from p2plearn.monitoring.metrics import ROWS, ProcessFacts, families
from p2plearn.monitoring.process import read_process

names = st.from_regex(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,20}", fullmatch=True).filter(lambda name: not name.endswith("_total"))
# The text format ends lines at \n alone; the parser here splits at \r as well.
texts = st.text(st.characters(exclude_characters="\r\x85\u2028\u2029\x0b\x0c\x1c\x1d\x1e", exclude_categories=["Cs"]))
numbers = st.floats() | st.integers(-(2**53), 2**53)
labels = st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True), texts, max_size=3)


@given(names, texts.map(str.strip), st.lists(st.tuples(numbers, labels), min_size=1, max_size=4))
def test_what_is_written_is_read_back(name: str, words: str, samples: list[tuple[float, dict[str, str]]]) -> None:
    family = Family(name, "gauge", words, tuple(Sample(value, given_labels) for value, given_labels in samples))
    (read,) = text_string_to_metric_families(render([family]))
    assert (read.name, read.type, read.documentation) == (name, "gauge", words)
    for back, (value, given_labels) in zip(read.samples, samples, strict=True):
        assert back.labels == given_labels
        assert back.value == float(value) or (math.isnan(back.value) and math.isnan(value))


def test_a_family_without_samples_is_left_out_and_wrong_names_are_refused() -> None:
    assert render([Family("p2plearn_x", "gauge", "Nothing.", ())]) == ""
    for name, kind in (("1x", "gauge"), ("x y", "gauge"), ("x", "counter"), ("x_total", "gauge")):
        with pytest.raises(ValueError, match="is no name"):
            Family(name, kind, "", ())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="is no label"):
        Family("x", "gauge", "", (Sample(1, {"__name__": "y"}),))


STATUS = {
    "peers": 3, "courses": 7, "faults": 2, "paused": False, "banned": [{"peer": "x"}], "fetching": [],
    "unreachable": {"12D3KooWSecretPeer": "no answer"},
    "dht": {"peers": 9, "announced": 6, "waiting": 1, "late": 1, "lateness": 301.5, "tellings": 12},
    "storage": {"bytes": 1000, "quota": None, "free_disk": 5, "min_free": 4},
    "custody": {
        "under_replicated": [
            {"course": "ab" * 32, "title": "A secret title", "copies": 1, "copies_wanted": 3},
            {"course": "cd" * 32, "title": "Another", "copies": 2, "copies_wanted": 3},
        ],
        "lost": [], "units": 4, "repairing": 0, "given": 10, "give": 20,
    },
    "people": {"lag": 12.25, "exchanges": 5, "bytes_in": 6, "bytes_out": 7, "dropped": {"stale": 2}},
    "moved": {"lan_sent": 1, "lan_received": 2, "wan_sent": 3, "wan_received": 4, "lan_relayed": 5, "wan_relayed": 6},
}  # fmt: skip


def read(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_status_as_metrics_has_what_alerts_need_and_tells_nothing_else() -> None:
    text = render(families(STATUS, ProcessFacts(1.5, 10, 20, 8, 1024, 1e9), "1.2.3"))
    samples = read(text)

    def one(name: str, **labels: str) -> float:
        return samples[name, frozenset(labels.items())]

    assert one("p2plearn_build_info", version="1.2.3") == 1
    assert one("p2plearn_courses_below_target") == 2
    assert one("p2plearn_copies_below_target") == 3
    assert one("p2plearn_provide_lateness_seconds") == 301.5
    assert one("p2plearn_provide_tellings_total") == 12
    assert one("p2plearn_sync_lag_seconds") == 12.25
    assert one("p2plearn_sync_records_dropped_total", reason="stale") == 2
    assert one("p2plearn_course_bytes_total", network="wan", direction="sent") == 3
    assert one("p2plearn_course_bytes_total", network="lan", direction="received") == 2
    assert one("p2plearn_banned_peers") == one("p2plearn_unreachable_peers") == 1
    assert one("process_open_fds") == 8
    assert ("p2plearn_store_quota_bytes", frozenset()) not in samples
    assert all(word not in text for word in ("SecretPeer", "secret title", "abab"))


def test_what_a_status_lacks_gives_no_sample_and_names_are_unique() -> None:
    samples = read(render(families({}, ProcessFacts(0.0), "1")))
    assert {name for name, _ in samples} == {"p2plearn_build_info", "process_cpu_seconds_total"}
    everything = [row.name for row in ROWS]
    assert len(everything) == len(set(everything))
    assert all(name.startswith("p2plearn_") for name in everything)


def test_this_process_is_told_as_the_kernel_tells_it() -> None:
    gc.collect()  # descriptors that other tests left to the collector must not go in between
    facts = read_process()
    before = facts.cpu_seconds
    with open(os.devnull, "rb"):
        more = read_process()
    assert more.cpu_seconds >= before > 0
    if facts.open_files is not None and more.open_files is not None:  # None where there is no /proc
        assert more.open_files == facts.open_files + 1
        assert facts.resident_bytes is not None
        assert facts.started is not None
        assert facts.resident_bytes > 1 << 20
        assert facts.started > 1e9
