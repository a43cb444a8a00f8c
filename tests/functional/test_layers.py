# SPDX-License-Identifier: BSD-3-Clause
"""A clone and its parent with a key each, both from one key server."""

import pytest

import lab
from lab.load import Load
from lab.servers import names
from lab.trail import of, read

PARENT, CHILD = b"the parent's passphrase", b"the child's passphrase"


@pytest.fixture
def clone(images, bao, dump):
    """A clone whose key is layers/child, of what layers/parent opens; where
    librbd knows no layers it is not encrypted anew."""
    child = images.clone(images.luks(passphrase=PARENT))
    for name, text in ("parent", PARENT), ("child", CHILD):
        bao.put("logins/" + name, {"key": text.decode()})
    if dump["rbdcrypt_encryption_load2"] == "yes":
        images.give_own_key(child, CHILD)
    return child


def test_one_login_for_two_layers_and_revoking_the_parents_key(
        servers, clone, bao, logins, approle, by_auth, tmp_path, dump):
    trail = tmp_path / "audit.json"
    # A second login would be refused.
    role = logins.role("approle", secret_id_num_uses=1)
    arguments = [clone, "key=t:child", "key=t:parent",
                 by_auth(approle(role)), "recheck=1", "audit=%s" % trail]
    if dump["rbdcrypt_encryption_load2"] != "yes":
        names(servers.refused(*arguments), "key")
        lab.await_(lambda: bao.tokens(role) == {}, 20, "the login is ended")
        return
    server = servers.start(*arguments)
    load = Load(server.connect(timeout=lab.UNLOCK_LIMIT))
    lab.await_(lambda: load.count > 500, 30, "the load runs")
    assert load.errors == []
    assert len(bao.tokens(role)) == 1

    assert [(e["event"], e["key"]) for e in read(trail)[:2]] == \
        [("fetch", "t:child"), ("fetch", "t:parent")]
    bao.must("DELETE", "secret/data/logins/parent")
    load.wait(20)
    load.was_refused()
    [revoke] = lab.await_(
        lambda: of(read(trail), "revoke"), 10, "the revocation is told")
    assert (revoke["outcome"], revoke["key"]) == ("gone", "t:parent")
    assert "t:child" not in revoke["why"], revoke
    assert set(bao.paths(revoke["request_id"])) == {
        "secret/data/logins/parent"}
    server.expected_status = 0
