import re

from infra.clock import SystemClock
from infra.ids import RandomIds
from tests.fakes import NOW_MS, FakeClock, SeededIds


def test_elapsed_time_never_falls():
    clock = SystemClock()
    readings = [clock.elapsed_s() for _ in range(100)]
    assert readings == sorted(readings)


def test_wall_time_is_unix_milliseconds():
    assert 1_700_000_000_000 < SystemClock().now_ms() < 4_000_000_000_000


def test_a_fake_clock_stands_still_until_told_and_a_jump_leaves_elapsed_time_alone():
    clock = FakeClock()
    assert (clock.now_ms(), clock.elapsed_s()) == (NOW_MS, 0.0)
    clock.advance(1.5)
    clock.jump(-3_600)
    assert (clock.now_ms(), clock.elapsed_s()) == (NOW_MS + 1_500 - 3_600_000, 1.5)


def test_tokens_hold_the_bits_asked_for_and_fit_names_topics_and_urls():
    for bits in (8, 64, 128, 256):
        token = RandomIds().token(bits)
        assert re.fullmatch("[a-z2-7]+", token)
        assert len(token) * 5 >= bits


def test_random_ids_do_not_repeat_and_seeded_ones_repeat_with_their_seed():
    ids = RandomIds()
    assert len({ids.token() for _ in range(1_000)}) == 1_000
    assert [SeededIds(7).token(), SeededIds(7).number()] == [SeededIds(7).token(), SeededIds(7).number()]
    assert SeededIds(7).token() != SeededIds(8).token()


def test_numbers_fit_a_signed_64_bit_field():
    ids = RandomIds()
    assert all(0 <= ids.number() < 2**63 for _ in range(1_000))
