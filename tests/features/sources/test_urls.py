"""URLs that may be opened and URLs that may not. No test here uses the network."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from features.errors import SettingsError
from features.sources.download.policy import DownloadPolicy, ForbiddenUrlError, check_url, parse_url
from features.sources.urls import is_url, make_download_name, make_url_clip, parse_source

PUBLIC = "93.184.215.14"


def resolving(*addresses: str) -> DownloadPolicy:
    return DownloadPolicy(resolve=lambda host, port: list(addresses))


def never(host: str, port: int) -> Sequence[str]:
    raise AssertionError(f"{host} was looked up")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1.2.3",
        "0.0.0.0",
        "10.1.2.3",
        "172.31.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "100.100.100.200",
        "169.254.169.254",
        "168.63.129.16",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "2130706433",
        "134744072",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
        "127.0.1",
        "010.0.0.1",
        "1.2.3.4.5",
        "１２７.0.0.1",
        "127。0。0。1",
        "①②⑦.0.0.1",
        "[::]",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:8.8.8.8]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::a00:1]",
        "[2002:7f00:1::]",
        "[2001:0:7f00:1::]",
        "[2001:db8::1]",
        "[3fff::1]",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "[fec0::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[5f00::1]",
        "[4000::1]",
        "[::1",
        "a..b",
        "a b",
        "%31%32%37.0.0.1",
        "",
    ],
)
def test_hosts_that_are_refused(host: str) -> None:
    with pytest.raises(ForbiddenUrlError):
        check_url(f"http://{host}/a.mp4", DownloadPolicy(resolve=never))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://a.example/b", "ftp:// is not allowed"),
        ("file:///etc/passwd", "file:// is not allowed"),
        ("https://me:secret@a.example/b", "a user name or password"),
        ("https://a.example@127.0.0.1/b", "a user name or password"),
        ("https://a.example\\@127.0.0.1/b", "a backslash"),
        ("https://a.example/b\r\nHost: c", "a control character"),
        ("https://a.example:22/b", "port 22 is not allowed"),
        ("https://a.example:0/b", "port 0 is not allowed"),
        ("https://a.example:99999/b", "not a valid URL"),
        ("https://a.example/" + "b" * 5000, "5018 characters; at most 4096"),
    ],
)
def test_addresses_that_are_refused_without_a_look_up(url: str, message: str) -> None:
    with pytest.raises(ForbiddenUrlError, match=message) as refused:
        check_url(url, DownloadPolicy(resolve=never))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "100.64.0.1", "64:ff9b::7f00:1", "::1", "fe80::1%eth0"])
def test_a_name_is_refused_where_any_of_its_addresses_is(address: str) -> None:
    with pytest.raises(ForbiddenUrlError, match=r"a\.example leads to .*only public addresses are allowed"):
        check_url("http://a.example/", resolving(PUBLIC, address))


def test_a_name_is_looked_up_once_and_gives_the_addresses_to_connect_to() -> None:
    asked: list[tuple[str, int]] = []

    def resolve(host: str, port: int) -> Sequence[str]:
        asked.append((host, port))
        return [PUBLIC, "2606:2800:21f::1", PUBLIC]

    target = check_url(
        "HTTPS://Bücher.Example:8443/ä b".replace(" ", "%20") + "?q=ü#t=3", DownloadPolicy(resolve=resolve)
    )
    assert asked == [("xn--bcher-kva.example", 8443)]
    assert target.ip_addresses == (PUBLIC, "2606:2800:21f::1")
    assert target.url == "https://xn--bcher-kva.example:8443/%C3%A4%20b?q=%C3%BC"


def test_networks_may_be_allowed_one_by_one() -> None:
    policy = DownloadPolicy(networks=("192.168.1.0/24", "::1/128"), resolve=never)
    assert check_url("http://192.168.1.7:8080/a.mp4", policy).ip_addresses == ("192.168.1.7",)
    assert check_url("http://[::1]:8080/a.mp4", policy).url == "http://[::1]:8080/a.mp4"
    for other in ("192.168.2.1", "[::ffff:192.168.1.7]"):
        with pytest.raises(ForbiddenUrlError):
            check_url(f"http://{other}/", policy)


def test_no_address_at_all_is_refused() -> None:
    with pytest.raises(ForbiddenUrlError, match="has no IP address"):
        check_url("http://a.example/", resolving())


def test_parts_of_a_plain_address() -> None:
    target = parse_url("http://93.184.215.14")
    assert (target.host, target.port, target.path, target.url) == (PUBLIC, 80, "/", f"http://{PUBLIC}/")


def test_addresses_stay_text() -> None:
    assert parse_source("https://a.example//b.mp4") == "https://a.example//b.mp4"
    assert parse_source("videos//a.mp4") == Path("videos/a.mp4")
    assert not is_url(Path("https://a")) and not is_url("C:/videos") and is_url("ftp://a")


@pytest.mark.parametrize(
    ("url", "readable", "suffix"),
    [
        ("https://a.example/x/clip%20one.MP4?t=1", "clip_one", ".MP4"),
        ("https://a.example/watch?v=1", "watch", ""),
        ("https://a.example/list.m3u8", "list_m3u8", ""),
        ("https://a.example/", "a_example", ""),
        ("https://a.example/..%2f..%2fetc%2fpasswd", "passwd", ""),
        ("https://a.example/.mp4", "mp4", ""),
    ],
)
def test_downloads_have_readable_names_of_their_own(url: str, readable: str, suffix: str) -> None:
    name = make_download_name(url)
    assert name.startswith(f"{readable}-") and Path(name).suffix == suffix and Path(name).name == name
    assert name == make_download_name(url) != make_download_name(url + "&x")


def test_a_media_fragment_names_a_part_of_one_download() -> None:
    whole, part, rest, anchor = (
        make_url_clip(f"https://a.example/b.mp4{fragment}", Path("d"))
        for fragment in ("", "#t=12,15.5", "#t=3", "#top")
    )
    assert whole.file == part.file == rest.file == anchor.file
    assert (part.path, part.start_seconds, part.end_seconds) == ("https://a.example/b.mp4#t=12,15.5", 12.0, 15.5)
    assert (rest.start_seconds, rest.end_seconds) == (3.0, None)
    assert (anchor.start_seconds, anchor.end_seconds) == (whole.start_seconds, whole.end_seconds) == (0.0, None)
    for wrong in ("#t=1m30s", "#t=5,3", "#t=5,5"):
        with pytest.raises(SettingsError, match="written as #t=START,END in seconds"):
            make_url_clip(f"https://a.example/b.mp4{wrong}", Path("d"))
