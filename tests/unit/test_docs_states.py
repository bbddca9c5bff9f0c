"""The drawings of life cycles are those of the tables."""

from registry.states import DEVICE
from scripts import make_states_page


def test_the_page_is_what_the_tables_say():
    assert make_states_page.PAGE.read_text(encoding="utf-8") == make_states_page.page(), (
        "run `make vectors`, and look at the difference"
    )


def test_every_life_cycle_has_a_name_of_its_own_and_is_there():
    names = [machine.name for _, machine in make_states_page.machines()]
    assert DEVICE.name in names
    assert len(set(names)) == len(names)
