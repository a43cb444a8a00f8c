# SPDX-License-Identifier: BSD-3-Clause
"""Key servers that turn hostile while a volume is served, which must not
end by it."""

from lab import fake_kms, trail
from lab.command import await_
from lab.settings import MIB, pattern

# librados and librbd alone take about 100 MiB.
RSS_LIMIT = 256 * MIB

HTML = b"<html><body>Access denied by policy.</body></html>"
GATEWAY = b'{"message":"no route matched","code":%d}'


def body(data):
    return fake_kms.answer("200 OK", data)


def key_is(value):
    return body(b'{"data":{"data":{"key":' + value + b"}}}")


TURNS = {
    "redirect": fake_kms.answer("307 Temporary Redirect", b"",
                                ["Location: https://127.0.0.2:1/v1/x"]),
    "2-GiB": fake_kms.two_gib(),
    "2-GiB-in-chunks": fake_kms.two_gib_in_chunks(),
    "10000-deep": body(b'{"data":' * 10000 + b"}" * 10000),
    "not-HTTP": fake_kms.says(b"<html>hello</html>"),
    "silent": fake_kms.silent,
    "another-200": body(b'{"status":"ok"}'),
    "empty-200": body(b""),
    "html-200": body(HTML),
    "null-key": key_is(b"null"),
    # What stands before the server refuses, and knows nothing of keys.
    "html-403": fake_kms.answer("403 Forbidden", HTML),
    "empty-403": fake_kms.answer("403 Forbidden", b""),
    "gateway-403": fake_kms.answer("403 Forbidden", GATEWAY % 403),
    "html-401": fake_kms.answer("401 Unauthorized", HTML),
    "gateway-401": fake_kms.answer("401 Unauthorized", GATEWAY % 401),
    "html-404": fake_kms.answer("404 Not Found", HTML),
    "gateway-404": fake_kms.answer("404 Not Found", GATEWAY % 404),
    "html-407": fake_kms.answer("407 Proxy Authentication Required", HTML),
    "html-410": fake_kms.answer("410 Gone", HTML),
}


def io_until(condition, client):
    """While the server waits for an answer, clients do not."""
    data = pattern(4096, 7)
    client.write(data, 0)
    await_(condition, 20, "it is asked")
    assert client.read(4096, 0) == data


def outage(n, path):
    """One warning, one word in the trail at PATH, and the end of both."""
    n.says("the key server answers again")
    assert n.stderr().count("continuing for") == 1, n.stderr()

    def told():
        return trail.told(trail.read(path))[3:]
    await_(lambda: told()[1:], 20, "the trail tells the end")
    assert told()[1:] == [("recheck", "ok")], told()
    return told()[0]
