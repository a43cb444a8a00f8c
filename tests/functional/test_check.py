# SPDX-License-Identifier: BSD-3-Clause
"""check=yes rehearses a start, says what is wrong, and serves nothing."""

import os
import re

import pytest

import lab
from lab import exports, fake_kms
from lab.servers import names, served
from lab.trail import of, read

WELL = "rbdcrypt: check: nothing is wrong"


def well(servers, *arguments, **kwargs):
    """Run a check that must find nothing wrong and leave nothing behind."""
    server = servers.begin(*arguments, "check=yes", **kwargs)
    status = server.wait(lab.START_LIMIT)
    assert (status, server.lines()) == (0, [WELL]), server.stderr()
    assert sorted(os.listdir(server.dir)) == ["stderr"]
    assert lab.processes_with(server.socket) == []
    servers.forget(server)


@pytest.mark.parametrize("kind", [lab.Server, lab.Daemon])
def test_well(servers, encrypted, key, kind):
    well(servers, encrypted, key, kind=kind)


def test_no_command_is_run(servers, encrypted, key, tmp_path):
    mark = tmp_path / "ran"
    well(servers, encrypted, key, options=["--run", "touch %s" % mark])
    assert not mark.exists()


def test_no_client_is_served_on_a_given_descriptor(servers, encrypted, key):
    well(servers, encrypted, key, options=["-s"])


def test_before_a_change_of_user(servers, encrypted, key):
    well(servers, encrypted, key, options=["-u", "nobody"])


def test_no_means_no(servers, encrypted, key):
    served(servers, encrypted, key, "check=no")
    names(servers.refused(encrypted, key, "check=maybe"),
          "check=maybe: must be no or yes")


def test_beside_the_server_whose_configuration_it_is(servers, images, key):
    """The check uses the server's socket and image; the server goes on serving
    and keeps the lock."""
    image = images.luks()
    server = servers.start(image, key)
    with server.connect() as c:
        c.write(lab.pattern(4096), 0)
        checked = lab.run(*server.argv, "check=yes", env=servers.env)
        assert checked.stdout.decode().splitlines() == [WELL]
        c.flush()
        assert c.read(4096, 0) == lab.pattern(4096)
    server.works()


# ---------------------------------------------------------------------
# What is wrong.

@pytest.mark.parametrize("arguments,words", [
    (["engine=foo"], ["engine=foo: must be auto, librbd or openssl"]),
    (["recheck=soon"], ["recheck=soon"]),
    (["ceph.no_such_option=1"], ["no_such_option"]),
    (["audit=/nonexistent/audit"], ["/nonexistent/audit"]),
    (["trim=on", "engine=openssl", "zero=punch", "extents=sometimes"],
     ["extents=sometimes"]),
])
def test_bad_parameters(servers, encrypted, key, arguments, words):
    names(servers.refused(encrypted, key, "check=yes", *arguments), *words)


def test_missing_image_and_key(servers, encrypted, key):
    names(servers.refused("rbd/no-such-image", key, "check=yes"),
          "no-such-image")
    names(servers.refused(encrypted, "key=file:/nonexistent", "check=yes"),
          "/nonexistent")


def test_bad_profile(servers, encrypted, bao, by_auth):
    names(servers.refused(encrypted, "key=t:vol", "check=yes", by_auth(
        {"method": "token_file", "path": "/nonexistent"})),
        'profile "t"', "/nonexistent")


@pytest.mark.parametrize("engine", ["librbd", "openssl"])
@pytest.mark.parametrize("make", ["luks", "costly"])
def test_wrong_passphrase(servers, images, files, make, engine):
    """A check also does a costly unlock, which a start leaves to the server."""
    names(servers.refused(
        getattr(images, make)(), "key=file:" + files("wrong", "wrong"),
        "check=yes", "engine=" + engine, limit=lab.UNLOCK_LIMIT), "keyslot")


def test_costly_header(servers, images, key):
    server = servers.begin(images.costly(), key, "check=yes", "engine=librbd")
    assert server.wait(lab.UNLOCK_LIMIT) == 0, server.stderr()
    assert server.lines() == [WELL]


def test_key_server_that_does_not_answer(servers, encrypted, bao, by_auth):
    with fake_kms.in_place_of(bao, fake_kms.answer(
            "503 Service Unavailable", b'{"errors":["Vault is sealed"]}')) as s:
        names(servers.refused(
            encrypted, "key=t:vol", "check=yes", by_auth(
                {"method": "token", "token": "t"}, address=s.address,
                timeout=2)), "answered 503")


def test_warnings_are_told_and_are_no_errors(servers, encrypted, bao, logins,
                                             approle, by_auth):
    role = logins.role("approle")
    nobody = "https://127.0.0.1:%d" % lab.free_port()
    server = servers.begin(encrypted, "key=t:vol", "check=yes", by_auth(
        approle(role), address=None, addresses=[nobody, bao.address]))
    assert server.wait(lab.START_LIMIT) == 0, server.stderr()
    warning, last = server.lines()
    assert "warning: not all addresses of OpenBao answer: " + nobody in warning
    assert last == WELL


def test_each_export_is_tried(servers, images, key, files):
    """A missing image fails a check; a start refuses only its clients."""
    ref, wrong = key[len("key="):], "file:" + files("wrong", "wrong")
    entries = {"good": {"image": str(images.luks()), "key": ref},
               "plain": {"image": str(images.luks()), "key": "none"}}

    def parameters():
        return "exports=" + files("exports.json", exports.text(entries))
    well(servers, parameters())
    entries.update({"gone": {"image": "rbd/no-such-image", "key": ref},
                    "shut": {"image": str(images.costly()), "key": wrong}})
    server = servers.begin(parameters(), "check=yes")
    assert server.wait(lab.UNLOCK_LIMIT) == 1, server.stderr()
    told = {re.search('export "(.*?)"', s).group(1): s
            for s in server.lines()}
    assert sorted(told) == ["gone", "shut"], server.stderr()
    assert "no-such-image" in told["gone"] and "keyslot" in told["shut"]
    servers.forget(server)


def test_broken_exports_file(servers, files):
    names(servers.refused("exports=" + files("exports.json", '{"exports": '),
                          "check=yes"), "exports.json")


# ---------------------------------------------------------------------
# What it leaves behind.

def test_login_is_revoked(servers, encrypted, bao, logins, approle, by_auth):
    role = logins.role("approle")
    answers = bao.answers("auth/approle/login", role)
    well(servers, encrypted, "key=t:vol", by_auth(approle(role)))
    assert answers.asked() == 1
    lab.await_(lambda: bao.tokens(role) == {}, 20, "no token is left")


def test_login_of_exports_is_revoked(servers, images, logins, approle, by_auth,
                                     bao, files):
    """Each export is tried in a process of its own; all share one login."""
    role = logins.role("approle")
    answers = bao.answers("auth/approle/login", role)
    entries = {n: {"image": str(images.luks()), "key": "t:vol"} for n in "ab"}
    well(servers, "exports=" + files("exports.json", exports.text(entries)),
         by_auth(approle(role)))
    assert answers.asked() == 1
    lab.await_(lambda: bao.tokens(role) == {}, 20, "no token is left")


def test_wrapped_secret_id_is_not_used_up(servers, encrypted, logins, approle,
                                          by_auth):
    """A start after the check can still unwrap the secret id."""
    role = logins.role("approle")
    profiles = by_auth(approle(role, wrapped=True))
    names(servers.refused(encrypted, "key=t:vol", profiles, "check=yes"),
          "check=yes does not ask for the key t:vol", "single use")
    served(servers, encrypted, "key=t:vol", profiles)


def test_fetch_is_in_the_trail(servers, encrypted, bao, logins, approle,
                               by_auth, tmp_path):
    trail = tmp_path / "audit.json"
    role = logins.role("approle")
    well(servers, encrypted, "key=t:vol", by_auth(approle(role)),
         "audit=%s" % trail)
    lines = read(trail)
    assert [e["outcome"] for e in of(lines, "fetch")] == ["ok"], lines
    assert len(lines) == 1, lines
