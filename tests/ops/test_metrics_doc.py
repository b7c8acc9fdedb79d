"""docs/metrics.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from scripts.write_metrics_doc import filled

from hevcq.domain.verdict import FailureClass
from hevcq.settings.model import Settings
from hevcq.worker.monitoring.metrics import METRICS
from hevcq.worker.monitoring.recorder import ENDS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def test_the_table_is_that_of_the_code():
    page = PAGE.read_text(encoding="utf-8")

    assert page == filled(page), "run python scripts/write_metrics_doc.py"


def test_the_alarms_name_metrics_ends_and_classes_that_there_are():
    alarms = PAGE.read_text(encoding="utf-8").partition("## The alarms")[2]
    names = {metric.name for metric in METRICS}

    known = names | set(ENDS.values()) | {kind.value for kind in FailureClass}
    quoted = set(re.findall(r"`([A-Za-z]+)`", alarms))
    assert quoted - known == set()
    assert len(quoted & names) >= 4


def test_the_settings_it_names_are_settings():
    named = set(re.findall(r"\bmetrics_[a-z_]+\b", PAGE.read_text(encoding="utf-8")))

    assert named == {name for name in Settings.model_fields if name.startswith("metrics_")}
