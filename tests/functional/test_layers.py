# SPDX-License-Identifier: BSD-3-Clause
"""A clone and its parent with a key each, both from one key server."""

import json

import pytest

import lab
from test_openbao_logins import approle, logins, profile
from test_revocation import Load
from test_start_image import names

assert approle and logins and profile  # fixtures

PARENT, CHILD = b"the parent's passphrase", b"the child's passphrase"


@pytest.fixture
def clone(images, files, cluster, bao, dump):
    """A clone whose key is layers/child, of what layers/parent opens; where
    librbd knows no layers it is not encrypted anew."""
    parent = images.luks(passphrase=PARENT)
    base = parent.spec + "@base"
    cluster.rbd("snap", "create", "--no-progress", base)
    child = "rbd/child-of-" + parent.spec.split("/")[-1]
    cluster.rbd("clone", "--rbd-default-clone-format", "2", base, child)
    for name, text in ("parent", PARENT), ("child", CHILD):
        bao.put("logins/" + name, {"key": text.decode()})
    if dump["rbdcrypt_encryption_load2"] == "yes":
        cluster.rbd("encryption", "format", child, "luks2",
                    files("child", CHILD))
    yield child
    cluster.rbd("rm", "--no-progress", child)


def test_one_login_for_two_layers_and_revoking_the_parents_key(
        servers, clone, bao, logins, approle, profile, tmp_path, dump):
    trail = tmp_path / "audit.json"
    # A second login would be refused.
    role = logins.role("approle", secret_id_num_uses=1)
    arguments = [clone, "key=t:child", "key=t:parent",
                 profile(approle(role)), "recheck=1", "audit=%s" % trail]
    if dump["rbdcrypt_encryption_load2"] != "yes":
        names(servers.refused(*arguments), "key")
        lab.await_(lambda: bao.tokens(role) == {}, 20, "the login is ended")
        return
    server = servers.start(*arguments)
    load = Load(server.connect(timeout=lab.UNLOCK_LIMIT))
    lab.await_(lambda: load.count > 500, 30, "the load runs")
    assert load.errors == []
    assert len(bao.tokens(role)) == 1

    def read():
        with open(trail, encoding="utf-8") as f:
            return [json.loads(line) for line in f if line.endswith("\n")]
    assert [(e["event"], e["key"]) for e in read()[:2]] == \
        [("fetch", "t:child"), ("fetch", "t:parent")]
    bao.must("DELETE", "secret/data/logins/parent")
    load.wait(20)
    load.was_refused()
    [revoke] = lab.await_(
        lambda: [e for e in read() if e["event"] == "revoke"], 10,
        "the revocation is told")
    assert (revoke["outcome"], revoke["key"]) == ("gone", "t:parent")
    assert "t:child" not in revoke["why"], revoke
    with open(bao.audit_log, encoding="utf-8") as f:
        asked = {r["path"] for r in (json.loads(line)["request"]
                                     for line in f)
                 if r["id"] == revoke["request_id"]}
    assert asked == {"secret/data/logins/parent"}
    server.expected_status = 0
