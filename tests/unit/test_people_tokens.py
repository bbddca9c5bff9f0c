"""Access tokens: who somebody is, for minutes, and no trick of the trade gets past."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import jwt
import pytest

from security.people.keys import FRESH_S, LIFE_S_MAX, PUBLISHED_S, ROTATION_D, SPARE_S
from security.people.tokens import AccessTokens, Claims, Epochs
from security.policy import Role
from tests.people_rig import PeopleRig, SharedStore, opened, process
from tests.token_corpus import BAD, Forge

WHO = "p-abcdefghij234567"
EPOCHS = Epochs(1, 1)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[PeopleRig]:
    async with opened(tmp_path) as store:
        yield await process(store, tmp_path)


def issued(rig: PeopleRig, role: Role = Role.REP) -> str:
    return rig.people.tokens.issue(WHO, role, EPOCHS).token.reveal()


def forge(rig: PeopleRig) -> Forge:
    _, key = rig.people.keys.sign_with()
    return Forge.of(issued(rig), key)


async def test_a_token_says_who_and_when_and_nothing_else(rig: PeopleRig):
    token = issued(rig)
    assert set(jwt.decode(token, options={"verify_signature": False})) == {
        "iss", "aud", "sub", "iat", "nbf", "exp", "jti", "epo",
    }  # fmt: skip
    assert jwt.get_unverified_header(token) == {
        "alg": "EdDSA",
        "typ": "at+jwt",
        "kid": rig.people.keys.sign_with()[0],
    }
    claims = rig.people.tokens.verify(token)
    assert isinstance(claims, Claims)
    assert (claims.subject, claims.epochs) == (WHO, EPOCHS)


@pytest.mark.parametrize(
    ("role", "life_s"), [(Role.OPERATOR, 300), (Role.BL, 300), (Role.REP, 600), (Role.CCS, 600)]
)
async def test_who_can_move_load_has_half_the_time(rig: PeopleRig, role: Role, life_s: int):
    token = issued(rig, role)
    rig.clock.advance(life_s - 1)
    assert rig.people.tokens.verify(token) is not None
    rig.clock.advance(1)
    assert rig.people.tokens.verify(token) is None


def test_the_corpus_is_as_large_as_was_promised():
    assert len(BAD) >= 40


async def test_the_forge_of_the_corpus_makes_good_tokens_too(rig: PeopleRig):
    assert rig.people.tokens.verify(forge(rig).good()) is not None


# Who a token is about, and which generation it is of, is the store's to say.
LATER = {"sub of nobody", "epo of the future", "epo of the past"}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_token_lets_nobody_in(rig: PeopleRig, name: str):
    bad = BAD[name](forge(rig))
    if name not in LATER:
        assert rig.people.tokens.verify(bad) is None
    assert await rig.people.identities.principal(bad) is None


async def test_every_failure_of_the_library_is_a_no(rig: PeopleRig, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: object, **__: object) -> object:
        raise TypeError("a key of another kind")

    token = issued(rig)
    monkeypatch.setattr(jwt, "decode", broken)
    assert rig.people.tokens.verify(token) is None


async def test_a_token_is_read_once_and_remembered_but_not_beyond_its_end(
    rig: PeopleRig, monkeypatch: pytest.MonkeyPatch
):
    token = issued(rig)
    read = list[str]()
    decode: Callable[..., dict[str, object]] = jwt.decode

    def counting(token: str, *arguments: object, **options: object) -> dict[str, object]:
        read.append(token)
        return decode(token, *arguments, **options)

    monkeypatch.setattr(jwt, "decode", counting)
    for _ in range(5):
        assert rig.people.tokens.verify(token) is not None
    assert len(read) == 1
    rig.clock.advance(LIFE_S_MAX)
    assert rig.people.tokens.verify(token) is None


async def test_what_is_remembered_is_bounded(rig: PeopleRig):
    tokens = AccessTokens(rig.people.keys, rig.clock, rig.ids, cached_max=3)
    for _ in range(10):
        assert tokens.verify(issued(rig)) is not None
    assert len(tokens._cached) == 3


# Keys


async def test_a_new_key_is_published_before_it_signs_and_the_old_one_stays_for_its_tokens(rig: PeopleRig):
    keys, old = rig.people.keys, rig.people.keys.sign_with()[0]
    token = issued(rig)
    await keys.rotate()
    published = [key["kid"] for key in keys.jwks()["keys"]]
    assert published[0] == old
    assert len(published) == 2
    assert keys.sign_with()[0] == old
    rig.clock.advance(PUBLISHED_S - 1)
    last = issued(rig)
    rig.clock.advance(1)
    assert keys.sign_with()[0] == published[1]
    assert rig.people.tokens.verify(token) is not None
    rig.clock.advance(LIFE_S_MAX - 2)
    assert rig.people.tokens.verify(last) is not None
    rig.clock.advance(SPARE_S + 2)
    assert [key["kid"] for key in keys.jwks()["keys"]] == [published[1]]


async def test_a_key_that_may_be_stolen_ends_at_once_with_all_its_tokens(rig: PeopleRig):
    token = issued(rig)
    await rig.people.keys.rotate(at_once=True)
    assert rig.people.tokens.verify(token) is None
    assert rig.people.tokens.verify(issued(rig)) is not None


async def test_keys_are_rotated_by_themselves_and_audited(rig: PeopleRig):
    assert not await rig.people.keys.rotate_if_due()
    rig.clock.advance(ROTATION_D * 86_400)
    assert await rig.people.keys.rotate_if_due()
    assert not await rig.people.keys.rotate_if_due()
    assert [row.role for row in await rig.rows("signing_key.write")] == ["system", "system"]


async def test_the_published_keys_are_public_halves(rig: PeopleRig):
    (key,) = rig.people.keys.jwks()["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "alg", "use"}
    decoded = jwt.decode(
        issued(rig), jwt.PyJWK(key), algorithms=["EdDSA"], audience="gnomon-api",
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )  # fmt: skip
    assert decoded["sub"] == WHO


async def test_the_private_half_is_stored_sealed(tmp_path: Path):
    async with opened(tmp_path) as store:
        rig = await process(store, tmp_path)
        _, key = rig.people.keys.sign_with()
        document = (await store.get("token_keys", ["ring"]))["ring"]
        assert key.private_bytes_raw() not in document.body


async def test_another_process_and_a_restart_verify_with_the_same_keys(tmp_path: Path):
    async with opened(tmp_path, "sqlite:{directory}/people.db") as store:
        token = issued(await process(store, tmp_path))
        again = await process(store, tmp_path, seed=2)
        assert again.people.tokens.verify(token) is not None
    async with opened(tmp_path, "sqlite:{directory}/people.db") as store:
        assert (await process(store, tmp_path, seed=3)).people.tokens.verify(token) is not None


async def test_another_process_sees_a_rotation_within_five_seconds(tmp_path: Path):
    async with opened(tmp_path) as store:
        first = await process(store, tmp_path)
        shared = SharedStore(store)
        second = await process(shared, tmp_path, first.clock, seed=2)  # type: ignore[arg-type]  # it passes all on
        await first.people.keys.rotate(at_once=True)
        first.clock.advance(FRESH_S + 0.1)
        await second.people.keys.refresh()
        assert second.people.tokens.verify(issued(first)) is not None
