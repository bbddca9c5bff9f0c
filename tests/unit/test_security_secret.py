"""A secret that shows itself to nobody who does not ask by name."""

import pickle

import pytest

from security.secret import Secret

CANARY = "canary-7f3"


@pytest.mark.parametrize("form", ["{}", "{:>20}", "{!r}", "{!s}"])
def test_it_prints_as_stars(form):
    said = form.format(Secret(CANARY))
    assert CANARY not in said
    assert "***" in said


def test_it_prints_as_stars_inside_of_others():
    assert CANARY not in repr({"password": [Secret(CANARY)]})


def test_it_is_given_out_when_asked():
    assert Secret(CANARY).reveal() == CANARY


def test_equal_texts_are_equal_and_others_are_not():
    assert Secret("a") == Secret("a")
    assert Secret("ä") != Secret("a")
    assert Secret("a") != "a"


def test_it_is_no_key_and_is_not_pickled():
    with pytest.raises(TypeError):
        hash(Secret("a"))
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(Secret("a"))


def test_an_empty_one_is_false():
    assert not Secret("")
    assert Secret(" ")
