"""Images over HTTP: cut anywhere, resumed by range, believed only when they hash."""

import hashlib
import random
import ssl
from dataclasses import dataclass

import pytest

from fleet.firmware import Download
from fleet.http_update import DownloadError, download, https

IMAGE = bytes((7 * i + 3) % 256 for i in range(200_000))
WANTED = Download("https://localhost/image", hashlib.sha256(IMAGE).hexdigest(), len(IMAGE))


@dataclass
class Answer:
    status: int
    data: bytes
    headers: dict[str, str]
    cut_after: int | None = None
    sent: int = 0

    def getheader(self, name):
        return self.headers.get(name)

    def read(self, amount):
        if self.cut_after is not None and self.sent >= self.cut_after:
            raise ConnectionResetError
        most = amount if self.cut_after is None else min(amount, self.cut_after - self.sent)
        data = self.data[self.sent : self.sent + most]
        self.sent += len(data)
        return data


class Server:
    def __init__(self, data=IMAGE, cuts=(), *, status=None, ignores_ranges=False):
        self.data, self.cuts, self.status, self.ignores_ranges = data, list(cuts), status, ignores_ranges
        self.requests = []

    def get(self, headers):
        self.requests.append(dict(headers))
        cut = self.cuts.pop(0) if self.cuts else None
        if self.status is not None:
            return Answer(self.status, b"", {})
        if "Range" not in headers or self.ignores_ranges:
            return Answer(200, self.data, {}, cut)
        start = int(headers["Range"].removeprefix("bytes=").rstrip("-"))
        place = f"bytes {start}-{len(self.data) - 1}/{len(self.data)}"
        return Answer(206, self.data[start:], {"Content-Range": place}, cut)


def test_a_download_cut_in_many_places_goes_on_where_it_was(tmp_path):
    chance = random.Random(4)
    server = Server(cuts=[chance.randint(1, 20_000) for _ in range(8)])
    download(WANTED, tmp_path / "image", server)
    assert (tmp_path / "image").read_bytes() == IMAGE
    assert len(server.requests) == 9
    assert all(one["If-Range"] == f'"{WANTED.sha256}"' for one in server.requests[1:])


def test_a_server_without_ranges_sends_all_of_it_again(tmp_path):
    download(WANTED, tmp_path / "image", Server(cuts=[50_000], ignores_ranges=True))
    assert (tmp_path / "image").read_bytes() == IMAGE


@pytest.mark.parametrize("data", [IMAGE[:-1] + b"\0", IMAGE[::-1]], ids=["last byte", "backwards"])
def test_what_does_not_hash_is_removed(tmp_path, data):
    with pytest.raises(DownloadError):
        download(WANTED, tmp_path / "image", Server(data))
    assert not (tmp_path / "image").exists()


def test_a_server_that_sends_more_than_was_signed_for_fills_no_disk(tmp_path):
    server = Server(IMAGE + b"more")
    download(WANTED, tmp_path / "image", server)
    assert (tmp_path / "image").stat().st_size == WANTED.size


def test_an_image_that_is_not_ours_any_more_is_given_up_at_once(tmp_path):
    server = Server(status=404)
    with pytest.raises(DownloadError):
        download(WANTED, tmp_path / "image", server)
    assert len(server.requests) == 1


def test_a_leftover_longer_than_the_image_is_not_believed(tmp_path):
    (tmp_path / "image").write_bytes(IMAGE + b"x")
    with pytest.raises(DownloadError):
        download(WANTED, tmp_path / "image", Server())
    assert not (tmp_path / "image").exists()


def test_a_server_that_is_always_busy_is_not_asked_for_ever(tmp_path):
    server = Server(status=503)
    with pytest.raises(DownloadError):
        download(WANTED, tmp_path / "image", server)
    assert len(server.requests) == 50


def test_an_image_does_not_come_over_plain_http():
    with (
        pytest.raises(DownloadError),
        https("http://localhost/v1/ota/images/00", ssl.create_default_context()),
    ):
        pass
