"""Writes what is planned for a campaign in some cases as text, to tests/vectors/ota/plans."""

from ota.plan import plan
from tests.ota_campaigns import text
from tests.unit.test_ota_plan import GOLDEN, golden

for name, now_ms, one, found, devices, around in golden():
    (GOLDEN / f"{name}.txt").write_text(text(plan(now_ms, one, found, devices, around)))
