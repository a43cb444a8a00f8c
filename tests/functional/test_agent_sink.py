# SPDX-License-Identifier: BSD-3-Clause
"""What a real agent of OpenBao leaves in its file sinks, and a login that is
a role id and nothing else."""

import json
import os
import shutil

import pytest

import lab
from lab.logins import works
from lab.servers import names


@pytest.fixture(scope="module")
def agent(bao, logins):
    """The directory with the sinks of an agent that has logged in."""
    logins.give_agent(logins.role("approle"))
    bao.agent()
    for name in ("agent.token", "agent.wrapped"):
        path = bao.file(name)
        lab.await_(lambda: os.path.exists(path), 10, path)
    return bao.dir


def token_file(path):
    return {"method": "token_file", "path": path}


def test_sink_of_the_default_mode(servers, encrypted, agent, by_auth):
    path = os.path.join(agent, "agent.token")
    assert os.stat(path).st_mode & 0o777 == 0o640
    with servers.start(encrypted, "key=t:vol",
                       by_auth(token_file(path))).connect() as c:
        assert c.size == encrypted.size


def test_sink_that_anybody_can_read(servers, encrypted, agent, by_auth,
                                    tmp_path):
    path = shutil.copy(os.path.join(agent, "agent.token"), tmp_path)
    os.chmod(path, 0o644)
    names(servers.refused(encrypted, "key=t:vol", by_auth(token_file(path))),
          path, "mode 0644", '"mode" of its sink', "0640")


def test_sink_that_is_wrapped(servers, encrypted, agent, by_auth):
    path = os.path.join(agent, "agent.wrapped")
    with open(path, encoding="ascii") as f:
        token = json.load(f)["token"]
    refusal = servers.refused(encrypted, "key=t:vol",
                              by_auth(token_file(path)))
    names(refusal, path, "JSON", '"wrap_ttl"')
    assert token not in refusal.sentence


def test_answer_of_the_command_in_place_of_a_credential(
        servers, encrypted, by_auth, approle, logins, files):
    """What -format=json prints, without a blank that would betray it."""
    role = logins.role("approle")
    for member, field in (("secret_id_file", "secret_id"),
                          ("wrapped_secret_id_file", "wrapping_token"),
                          ("role_id_file", "role_id")):
        auth = approle(role, role_id=None, role_id_file=files(
            "role-id", logins.role_id(role)))
        if member == "wrapped_secret_id_file":
            del auth["secret_id_file"]
        auth[member] = files("answer", '{"data":{"x":"s3cr3t"}}')
        refusal = servers.refused(encrypted, "key=t:vol", by_auth(auth))
        names(refusal, member, "JSON", "-field=" + field)
        assert "s3cr3t" not in refusal.sentence


def test_role_without_secret_ids(servers, encrypted, logins, by_auth, files):
    role = logins.role("approle", bind_secret_id=False,
                       secret_id_bound_cidrs=["127.0.0.0/8"])
    auth = {"method": "approle", "role_id": logins.role_id(role)}
    works(servers, logins, role, encrypted, "key=t:vol", by_auth(auth))
    auth = {"method": "approle",
            "role_id_file": files("id", logins.role_id(role) + "\n")}
    works(servers, logins, role, encrypted, "key=t:vol", by_auth(auth))
    # It is the whole login, and must be kept like one.
    os.chmod(auth["role_id_file"], 0o640)
    names(servers.refused(encrypted, "key=t:vol", by_auth(auth)),
          "role_id_file", "mode 0640", "whole login")


def test_role_that_wants_a_secret_id(servers, encrypted, logins, by_auth,
                                     classes):
    role = logins.role("approle")
    auth = {"method": "approle", "role_id": logins.role_id(role)}
    refusal = classes.refused(
        servers, "openbao", "configuration", "configuration", encrypted,
        "key=t:vol", by_auth(auth), words=["secret_id"])
    assert auth["role_id"] not in refusal.sentence
