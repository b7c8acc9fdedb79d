"""The damage campaign in short: nothing that lost packets or frames is accepted."""

from __future__ import annotations

from chaos.damage import Findings, clean_sources, inputs, outputs, prepare, report


def test_no_damaged_input_or_output_is_accepted_with_a_loss_and_no_clean_one_is_refused(tmp_path):
    found = Findings()
    ready = prepare(tmp_path, found, real=False)
    clean_sources(2, 3, tmp_path, found)
    found.inputs += inputs(ready, 20, 3, tmp_path, stride=7)
    found.outputs += outputs(ready, 20, 3, tmp_path, stride=7)

    assert found.unsafe() == [], report(found)
    assert found.alarms == []
    caught = [case for case in (*found.inputs, *found.outputs) if case.verdict == "caught"]
    assert len(caught) >= 20, report(found)
    assert all(case.detail for case in caught)
