"""Access tokens that must let nobody in, each by its name: what is known to have fooled somebody.

A :class:`Forge` knows the real key of a service under test, its id and the claims of a token that is good.
Every maker returns a text to send as a bearer. ``good`` is the control: it must be let in.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

DAY_S = 86_400
STRANGE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@dataclass(frozen=True)
class Forge:
    """What the best informed forger could have, and the real key besides."""

    key: Ed25519PrivateKey
    kid: str
    claims: Mapping[str, Any]

    @classmethod
    def of(cls, token: str, key: Ed25519PrivateKey) -> "Forge":
        """Return the forge that made this good token."""
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
        return cls(key, header["kid"], claims)

    def good(self) -> str:
        return self.signed()

    def signed(
        self,
        claims: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
        without: tuple[str, ...] = (),
        without_header: tuple[str, ...] = (),
        key: Ed25519PrivateKey | None = None,
    ) -> str:
        """Return a token whose signature is right, whatever it says."""
        says = {"alg": "EdDSA", "typ": "at+jwt", "kid": self.kid, **(header or {})}
        body = {**self.claims, **(claims or {})}
        says = {name: value for name, value in says.items() if name not in without_header}
        body = {name: value for name, value in body.items() if name not in without}
        return self.raw(msgspec.json.encode(says), msgspec.json.encode(body), key)

    def raw(self, header: bytes, body: bytes, key: Ed25519PrivateKey | None = None) -> str:
        signed = f"{b64(header)}.{b64(body)}"
        return f"{signed}.{b64((key or self.key).sign(signed.encode()))}"

    @property
    def now(self) -> int:
        at: int = self.claims["iat"]
        return at

    @property
    def public_pem(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _hs256(forge: Forge, secret: bytes) -> str:
    header = {"alg": "HS256", "typ": "at+jwt", "kid": forge.kid}
    signed = f"{b64(msgspec.json.encode(header))}.{b64(msgspec.json.encode(dict(forge.claims)))}"
    return f"{signed}.{b64(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def _other_algorithm(forge: Forge, algorithm: str, key: Any) -> str:
    headers = {"typ": "at+jwt", "kid": forge.kid}
    return jwt.encode(dict(forge.claims), key, algorithm=algorithm, headers=headers)


def _jwk_of(key: Ed25519PrivateKey) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}


def _unsigned(forge: Forge, algorithm: str, signature: str = "") -> str:
    header = {"alg": algorithm, "typ": "at+jwt", "kid": forge.kid}
    return f"{b64(msgspec.json.encode(header))}.{b64(msgspec.json.encode(dict(forge.claims)))}.{signature}"


def _flipped(forge: Forge, part: int) -> str:
    parts = forge.good().split(".")
    text = parts[part]
    parts[part] = text[:-2] + ("A" if text[-2] != "A" else "B") + text[-1]
    return ".".join(parts)


def _respelled(forge: Forge) -> str:
    """Return the good token in other letters: the last one has bits that nobody reads."""
    token = forge.good()
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    place = letters.index(token[-1])
    return token[:-1] + letters[place ^ 1]


def _claim(**claims: Any) -> Callable[[Forge], str]:
    return lambda forge: forge.signed(claims)


def _header(**header: Any) -> Callable[[Forge], str]:
    return lambda forge: forge.signed(header=header)


def _times(iat: float, nbf: float, exp: float) -> Callable[[Forge], str]:
    return lambda forge: forge.signed(
        {"iat": forge.now + iat, "nbf": forge.now + nbf, "exp": forge.now + exp}
    )


def _without(name: str) -> Callable[[Forge], str]:
    return lambda forge: forge.signed(without=(name,))


BAD: dict[str, Callable[[Forge], str]] = {
    # no token at all
    "nothing": lambda _: "",
    "a dot": lambda _: ".",
    "two dots": lambda _: "..",
    "a word": lambda _: "null",
    "zero bytes": lambda _: "\0\0.\0\0.\0\0",
    "two parts": lambda forge: forge.good().rpartition(".")[0],
    "four parts": lambda forge: forge.good() + ".AAAA",
    "huge": lambda forge: forge.signed({"jti": "x" * 100_000}),
    "parts that are no base64": lambda _: "a!b.c!d.e!f",
    "parts that are no json": lambda forge: forge.raw(b"no json", b"no json"),
    "a body that is a list": lambda forge: forge.raw(
        msgspec.json.encode({"alg": "EdDSA", "typ": "at+jwt", "kid": forge.kid}), b"[1,2]"
    ),
    "a header that is a list": lambda forge: forge.raw(b"[]", msgspec.json.encode(dict(forge.claims))),
    "a body nested without end": lambda forge: forge.raw(
        msgspec.json.encode({"alg": "EdDSA", "typ": "at+jwt", "kid": forge.kid}), b"[" * 900
    ),
    # another signature
    "alg none": lambda forge: _unsigned(forge, "none"),
    "alg None": lambda forge: _unsigned(forge, "None"),
    "alg nOnE with something behind": lambda forge: _unsigned(forge, "nOnE", "AAAA"),
    "alg empty": lambda forge: _unsigned(forge, "", "AAAA"),
    "EdDSA without a signature": lambda forge: _unsigned(forge, "EdDSA"),
    "signed by another key": lambda forge: forge.signed(key=STRANGE),
    "a signature of zeros": lambda forge: forge.good().rpartition(".")[0] + "." + b64(bytes(64)),
    "half a signature": lambda forge: forge.good()[:-40],
    "a body that was changed": lambda forge: _flipped(forge, 1),
    "a header that was changed": lambda forge: _flipped(forge, 0),
    "a signature that was changed": lambda forge: _flipped(forge, 2),
    "HS256 with the public key as pem": lambda forge: _hs256(forge, forge.public_pem),
    "HS256 with the raw public key": lambda forge: _hs256(forge, forge.key.public_key().public_bytes_raw()),
    "HS256 with an empty key": lambda forge: _hs256(forge, b""),
    "RS256": lambda forge: _other_algorithm(forge, "RS256", rsa.generate_private_key(65_537, 2_048)),
    "ES256": lambda forge: _other_algorithm(forge, "ES256", ec.generate_private_key(ec.SECP256R1())),
    "Ed25519 as the name of the algorithm": lambda forge: forge.signed(header={"alg": "Ed25519"}),
    "alg in small letters": _header(alg="eddsa"),
    "alg a list": _header(alg=["EdDSA"]),
    "no alg": lambda forge: forge.signed(without_header=("alg",)),
    # another key
    "no kid": lambda forge: forge.signed(without_header=("kid",)),
    "kid unknown": _header(kid="zzzzzzzz"),
    "kid a path": _header(kid="../../../../dev/null"),
    "kid with sql": _header(kid="' or '1'='1"),
    "kid a number": _header(kid=0),
    "kid null": _header(kid=None),
    "kid a list": lambda forge: forge.signed(header={"kid": [forge.kid]}),
    "jwk inside": lambda forge: forge.signed(header={"jwk": _jwk_of(STRANGE)}, key=STRANGE),
    "jwk inside, signed by us": lambda forge: forge.signed(header={"jwk": _jwk_of(STRANGE)}),
    "jku": _header(jku="https://example.com/jwks.json"),
    "x5u": _header(x5u="https://example.com/chain.pem"),
    "x5c": _header(x5c=["MIIB"]),
    "x5t": _header(x5t="abc"),
    "crit": _header(crit=["exp"], exp=0),
    "b64 false": _header(b64=False, crit=["b64"]),
    "zip": _header(zip="DEF"),
    "cty": _header(cty="JWT"),
    # another type
    "typ JWT": _header(typ="JWT"),
    "typ missing": lambda forge: forge.signed(without_header=("typ",)),
    "typ in capitals": _header(typ="AT+JWT"),
    "typ of an id token": _header(typ="id_token"),
    "typ a number": _header(typ=1),
    # members missing
    **{f"no {name}": _without(name) for name in ("iss", "aud", "sub", "iat", "nbf", "exp", "jti", "epo")},
    # members strange
    "another iss": _claim(iss="https://example.com"),
    "iss a list": _claim(iss=["gnomon"]),
    "another aud": _claim(aud="another-api"),
    "aud empty": _claim(aud=""),
    "aud null": _claim(aud=None),
    "aud a list with ours": _claim(aud=["another-api", "gnomon-api"]),
    "sub a number": _claim(sub=1),
    "sub of nobody": _claim(sub="p-aaaaaaaaaaaaaaaa"),
    "sub a path": _claim(sub="p-../../system"),
    "sub the system": _claim(sub="system"),
    "sub empty": _claim(sub=""),
    "a role inside": _claim(role="security"),
    "a scope inside": _claim(scope="everything"),
    "jti empty": _claim(jti=""),
    "jti a list": _claim(jti=["a"]),
    "epo a number": _claim(epo=1),
    "epo true": _claim(epo=[True, True]),
    "epo text": _claim(epo=["1", "1"]),
    "epo of the future": _claim(epo=[2**40, 2**40]),
    "epo of the past": _claim(epo=[0, 0]),
    "epo below zero": _claim(epo=[-1, -1]),
    # times
    "over": _times(-900, -900, -300),
    "over this second": _times(-300, -300, 0),
    "not yet": _times(0, 200, 300),
    "made in the future": _times(120, 0, 300),
    "ten years": _times(0, 0, 10 * 365 * DAY_S),
    "a second too long": _times(0, 0, 601),
    "ends before it begins": _times(0, 0, -1),
    "exp of 10^30": _claim(exp=10**30),
    "exp of 10^400": lambda forge: forge.raw(
        msgspec.json.encode({"alg": "EdDSA", "typ": "at+jwt", "kid": forge.kid}),
        msgspec.json.encode({**forge.claims, "exp": 0}).replace(b'"exp":0', b'"exp":1' + b"0" * 400),
    ),
    "exp a fraction": lambda forge: forge.signed({"exp": forge.now + 299.5}),
    "exp text": lambda forge: forge.signed({"exp": str(forge.now + 300)}),
    "exp true": _claim(exp=True),
    "exp null": _claim(exp=None),
    "exp below zero": _claim(exp=-1),
    "exp NaN": lambda forge: forge.raw(
        msgspec.json.encode({"alg": "EdDSA", "typ": "at+jwt", "kid": forge.kid}),
        msgspec.json.encode({**forge.claims, "exp": 0}).replace(b'"exp":0', b'"exp":NaN'),
    ),
    "iat text": lambda forge: forge.signed({"iat": str(forge.now)}),
    "iat null": _claim(iat=None),
    "nbf text": lambda forge: forge.signed({"nbf": str(forge.now)}),
    # the same token in other letters
    "padded": lambda forge: forge.good() + "==",
    "the last letter respelled": _respelled,
    "with a space behind": lambda forge: forge.good() + " ",
    "with a line feed behind": lambda forge: forge.good() + "\n",
    "with a space inside": lambda forge: forge.good().replace(".", " .", 1),
    "in the standard alphabet": lambda forge: forge.good().replace("-", "+").replace("_", "/") + "+",
    "in quotes": lambda forge: f'"{forge.good()}"',
    "twice": lambda forge: f"{forge.good()},{forge.good()}",
}
"""All of them are refused, with one and the same answer."""
