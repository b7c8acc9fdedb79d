"""Metrics with one outlet, with the other, and over an address of the new kind."""

from __future__ import annotations

import socket
import urllib.request

import pytest

from hevcq.errors import ConfigError
from hevcq.worker.monitoring.health import Health
from hevcq.worker.monitoring.prometheus import Exposition, Totals
from hevcq.worker.monitoring.reporter import MetricsReport, Outlets
from ops.metered import Metered, parsed

HEALTH = Health(slots=2, alive=2, handled=0, oldest_poll_s=0)


def read(exposition: Exposition, host: str) -> dict[str, float]:
    with urllib.request.urlopen(f"http://{host}:{exposition.port}/metrics") as answer:
        return parsed(answer.read().decode())


def test_a_worker_whose_metrics_are_only_read_writes_no_lines_and_serves_until_it_ends():
    metered = Metered()
    exposition = Exposition("127.0.0.1:0", metered.totals)
    outlets = Outlets(exposition=exposition)
    report = MetricsReport(metered.meter, [], outlets, metered.clock, every_s=60)
    metered.done()

    report.look(HEALTH)
    report.look(HEALTH)
    found = read(exposition, "127.0.0.1")
    report.close()

    assert any(name.startswith("hevcq_jobs_ended_total") for name in found)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", exposition.port), timeout=1)


def test_a_closed_exposition_lets_its_port_go():
    first = Exposition("127.0.0.1:0", Totals())
    first.close()

    again = Exposition(f"127.0.0.1:{first.port}", Totals())
    again.close()


def test_a_sample_without_labels_is_one_line():
    metered = Metered()
    metered.meter.slots(HEALTH)

    assert set(metered.text()) >= {"hevcq_slots", "hevcq_slots_busy"}


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_metrics_are_served_over_ip6():
    try:
        exposition = Exposition("[::1]:0", Totals())
    except ConfigError:
        pytest.skip("this machine has no address ::1")
    assert read(exposition, "[::1]") == {}
    exposition.close()
