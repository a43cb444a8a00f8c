# SPDX-License-Identifier: BSD-3-Clause
"""The profiles file: whom it may come from and what it may hold."""

import json
import os

import pytest

import lab
from lab.servers import names

GOOD = {"type": "openbao", "address": "https://127.0.0.1:1",
        "layout": "castellan",
        "auth": {"method": "token", "token": "s.hunter2"}}


def refused(servers, files, content, mode=0o600, key="key=t:vol"):
    if not isinstance(content, (str, bytes)):
        content = json.dumps(content)
    path = files("profiles.json", content, mode)
    refusal = servers.refused("rbd/x", key, "profiles=" + path)
    names(refusal, path)
    assert "hunter2" not in "\n".join(refusal.lines)
    assert refusal.seconds < lab.AT_ONCE
    return refusal


def changed(**members):
    p = dict(GOOD, **members)
    return {"profiles": {"t": {k: v for k, v in p.items() if v is not ...}}}


def test_missing_file_is_named(servers):
    names(servers.refused("rbd/x", "key=t:vol", "profiles=/nonexistent/p"),
          "/nonexistent/p", "t")


def test_directory_is_named(servers, tmp_path):
    names(servers.refused("rbd/x", "key=t:vol", "profiles=%s" % tmp_path),
          str(tmp_path))


@pytest.mark.parametrize("content", [
    "", "{", "not json", "[]", "null", '"profiles"', b"\xff\xfe{}",
    "{} {}", '{"profiles": {}} x',
    pytest.param("[" * 100000, id="deep-array"),
    pytest.param('{"profiles":' * 1000, id="deep-object")])
def test_what_is_no_json_object_is_refused(servers, files, content):
    refused(servers, files, content)


def test_file_of_10_mib_is_refused(servers, files):
    refused(servers, files, b" " * 10 * lab.MIB + b"{}")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_file_writable_by_others_is_refused(servers, files, mode):
    refused(servers, files, {"profiles": {"t": GOOD}}, mode)


def test_file_of_another_user_is_refused(servers, files):
    path = files("profiles.json", json.dumps({"profiles": {"t": GOOD}}))
    os.chown(path, 12345, 12345)
    names(servers.refused("rbd/x", "key=t:vol", "profiles=" + path), path,
          "12345")


def test_token_in_a_file_that_others_can_read_is_refused(servers, files):
    names(refused(servers, files, {"profiles": {"t": GOOD}}, 0o644), "token")


def test_unknown_profile_is_named(servers, files):
    names(refused(servers, files, {"profiles": {"t": GOOD}},
                  key="key=other:vol"), "other")


def test_duplicated_profile_is_refused(servers, files):
    one = json.dumps(GOOD)
    names(refused(servers, files,
                  '{"profiles": {"t": %s, "t": %s}}' % (one, one)), "t")


def test_duplicated_member_is_refused(servers, files):
    refused(servers, files, '{"profiles": {"t": {"type": "openbao", '
            '"type": "openbao"}}}')


@pytest.mark.parametrize("content,word", [
    ({}, "profiles"),
    ({"profiles": []}, "profiles"),
    ({"profiles": {"t": GOOD}, "more": 1}, "more"),
    ({"profiles": {"t": []}}, "t"),
    (changed(type=...), "type"),
    (changed(type=7), "type"),
    (changed(type="hsm9000"), "hsm9000"),
    (changed(address=...), "address"),
    (changed(address=1), "address"),
    (changed(address="http://192.0.2.1:8200"), "http"),
    (changed(address="ftp://127.0.0.1"), "address"),
    (changed(address="https://user:hunter2@127.0.0.1"), "address"),
    (changed(layout=...), "layout"),
    (changed(layout="upside-down"), "upside-down"),
    (changed(layout="field"), "field"),
    (changed(field="x"), "field"),
    (changed(layout="field", field="x", encoding="rot13"), "rot13"),
    (changed(engine="kv3"), "kv3"),
    (changed(mount="../sys"), "mount"),
    (changed(prefix="../"), "prefix"),
    (changed(timeout=0), "timeout"),
    (changed(timeout="2m"), "timeout"),
    (changed(timeout=1e99), "timeout"),
    (changed(ca_file="relative.pem"), "ca_file"),
    (changed(ca_file="/nonexistent/ca.pem"), "/nonexistent/ca.pem"),
    (changed(client_cert="/etc/hostname"), "client"),
    (changed(namespace=["a"]), "namespace"),
    (changed(nmaespace="a"), "nmaespace"),
    (changed(auth=...), "auth"),
    (changed(auth={}), "method"),
    (changed(auth={"method": "guess"}), "guess"),
    (changed(auth={"method": "token"}), "token"),
    (changed(auth={"method": "token", "token": "hunter2\n"}), "token"),
    (changed(auth={"method": "token_file", "path": "relative"}), "path"),
    (changed(auth={"method": "token_file", "path": "/nonexistent/t"}),
     "/nonexistent/t"),
    (changed(auth={"method": "token", "token": "hunter2", "x": 1}), "x"),
])
def test_bad_profile_is_refused_with_the_member(servers, files, content,
                                                word):
    names(refused(servers, files, content), word)


@pytest.mark.parametrize("reference", [
    "", "/", "a//b", "../x", "a/..", ".", "a?b", "a#b", "a%2fb", "a\nb",
    pytest.param("n" * 4096, id="4-KiB")])
def test_bad_reference_behind_a_profile_is_refused(servers, files,
                                                   reference):
    path = files("profiles.json", json.dumps({"profiles": {"t": GOOD}}))
    refusal = servers.refused("rbd/x", "key=t:" + reference,
                              "profiles=" + path)
    # No server was asked: the refusal would name it, after some tries.
    assert "127.0.0.1:1" not in refusal.sentence


def test_other_profiles_do_not_matter(servers, encrypted, files):
    """A mistake in one tenant's profile is not another's outage; the
    good one here gets as far as its address."""
    path = files("profiles.json", json.dumps(
        {"profiles": {"t": GOOD, "broken": {"type": "hsm9000"}}}))
    names(servers.refused(encrypted, "key=t:vol", "profiles=" + path),
          "127.0.0.1:1")
