# SPDX-License-Identifier: BSD-3-Clause
"""A host boots: the volumes of one tenant are opened, ten at a time, and the
key server is far away.  RBDCRYPT_STORM: so many volumes; tests/long/storm
has 200."""

import concurrent.futures
import json
import os
import time

import pytest

import lab
from lab import MIB
from lab.fake_kms import Way
from lab.openbao import FIELD

VOLUMES = int(os.environ.get("RBDCRYPT_STORM", "20"))
AT_A_TIME = 10
DELAY = 0.05  # seconds, of each answer
LIMIT = 20
COSTLY = 3
ROLE = "storm"


@pytest.fixture
def login(bao, files):
    """The member "auth" of a separate AppRole login."""
    if "approle/" not in bao.must("GET", "sys/auth"):
        bao.must("POST", "sys/auth/approle", {"type": "approle"})
    bao.must("PUT", "sys/policies/acl/storm", {
        "policy": 'path "secret/data/storm/*" { capabilities = ["read"] }'})
    role = "auth/approle/role/" + ROLE
    bao.must("POST", role, {"token_policies": [ROLE], "token_ttl": "300s"})
    return {"method": "approle",
            "role_id": bao.must("GET", role + "/role-id")["data"]["role_id"],
            "secret_id_file": files("secret-id", bao.must(
                "POST", role + "/secret-id", {})["data"]["secret_id"])}


@pytest.fixture
def fleet(servers, bao, login, files, profiles_file, entered):
    """fleet(IMAGES) -> a server of all of them, "vol-0" and so on."""
    def make(images, **kwargs):
        for n in range(len(images)):
            bao.put("storm/vol-%d" % n, {"key": lab.PASSPHRASE.decode()})
        way = entered(Way(bao.address, delay=DELAY))
        return servers.start(
            "exports=" + files("exports.json", json.dumps({"exports": {
                "vol-%d" % n: {"image": image.spec, "key": "kms:vol-%d" % n}
                for n, image in enumerate(images)}})),
            profiles_file(kms=bao.profile(**{
                **FIELD, "prefix": "storm/", "address": way.address,
                "auth": login})), "recheck=600", **kwargs)
    return make


def boots(server, n):
    """Boot as a guest does: two connections, which stay; one of them reads."""
    opened = [server.connect(export="vol-%d" % n, timeout=lab.UNLOCK_LIMIT)
              for _ in range(2)]
    assert len(opened[0].read(4096, 0)) == 4096


@pytest.mark.timeout(600)
def test_storm_takes_one_login_and_one_question_for_each_key(
        fleet, images, bao, record_property):
    begin = time.monotonic()
    all_ = [images.luks(size=8 * MIB) for _ in range(VOLUMES)]
    print("%d images: %.1f s" % (VOLUMES, time.monotonic() - begin))
    logins = bao.answers("auth/approle/login", ROLE)
    begin = time.monotonic()
    server = fleet(all_)
    started = time.monotonic()
    keys = [bao.answers("secret/data/storm/vol-%d" % n)
            for n in range(VOLUMES)]
    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        list(pool.map(lambda n: boots(server, n), range(VOLUMES)))
    seconds = time.monotonic() - started
    print("start: %.2f s; %d volumes: %.2f s" % (started - begin, VOLUMES,
                                                 seconds))
    record_property("seconds", seconds)
    assert seconds <= LIMIT
    assert [k.asked() for k in keys] == [1] * VOLUMES
    assert logins.asked() == 1


@pytest.mark.timeout(300)
def test_costly_volumes_wait_for_their_turn_and_others_do_not(
        fleet, images, turns):
    turns.hold(0)  # none is left
    server = fleet([images.costly() for _ in range(COSTLY)]
                   + [images.luks() for _ in range(AT_A_TIME)],
                   options=["-v", "-D", "rbdcrypt.session=1"])
    with concurrent.futures.ThreadPoolExecutor(COSTLY + AT_A_TIME) as pool:
        costly, others = [[pool.submit(boots, server, n) for n in which]
                          for which in (range(COSTLY), range(
                              COSTLY, COSTLY + AT_A_TIME))]
        for f in others:
            f.result(lab.UNLOCK_LIMIT)
        assert not any(f.done() for f in costly) \
            or "out of turn" in server.stderr()
        turns.release()
        for f in costly:
            f.result(lab.UNLOCK_LIMIT)
