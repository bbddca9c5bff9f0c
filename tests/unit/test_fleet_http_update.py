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
    (tmp_path / "image").write_bytes(IMAGE[:70_000])
    server = Server(status=404)
    with pytest.raises(DownloadError):
        download(WANTED, tmp_path / "image", server)
    assert len(server.requests) == 1
    assert not (tmp_path / "image").exists()


def test_a_leftover_longer_than_the_image_is_not_believed(tmp_path):
    (tmp_path / "image").write_bytes(IMAGE + b"x")
    with pytest.raises(DownloadError):
        download(WANTED, tmp_path / "image", Server())
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize(
    "server", [Server(status=503), Server(cuts=[0]), Server(b"")], ids=["busy", "cut at once", "empty"]
)
def test_a_server_from_which_nothing_comes_is_left_alone_and_what_is_there_stays(tmp_path, server):
    (tmp_path / "image").write_bytes(IMAGE[:70_000])
    with pytest.raises(OSError, match="nothing comes"):
        download(WANTED, tmp_path / "image", server)
    assert len(server.requests) == 1
    download(WANTED, tmp_path / "image", Server())
    assert (tmp_path / "image").read_bytes() == IMAGE


def test_a_download_that_is_cut_again_and_again_goes_on_another_time(tmp_path):
    server = Server(cuts=[1_000] * 60)
    with pytest.raises(OSError, match="too often"):
        download(WANTED, tmp_path / "image", server)
    assert len(server.requests) == 50
    assert (tmp_path / "image").stat().st_size == 50_000
    download(WANTED, tmp_path / "image", Server())
    assert (tmp_path / "image").read_bytes() == IMAGE


@pytest.mark.parametrize(
    "url", ["http://localhost/v1/ota/images/00", "https:///00", "https://localhost:x/00", "https://[/00"]
)
def test_an_image_comes_from_an_https_address_or_not_at_all(url):
    with pytest.raises(DownloadError), https(url, ssl.create_default_context()):
        pass
