# SPDX-License-Identifier: BSD-3-Clause
"""Keys from OpenBao: what opens a volume, and every way to be refused."""

import base64
import functools
import json
import time

import pytest

import lab
from lab import fake_kms
from lab.openbao import FIELD
from lab.servers import names, served

MIB = lab.MIB


@pytest.fixture
def environment(bao):
    return bao.environment


@pytest.fixture
def profile(bao, profiles_file):
    """profile(**members) -> profiles= of a file with the profile "t"."""
    return lambda **members: profiles_file(
        t=bao.profile(**{**FIELD, **members}))


@pytest.fixture
def misbehaving(bao):
    """misbehaving(REPLY), under the real server's certificate."""
    return functools.partial(fake_kms.in_place_of, bao)


TEXT = lab.PASSPHRASE.decode()


def test_bao_reference_opens_the_volume(servers, images, bao, environment):
    bao.put("volumes/a", {"key": TEXT, "other": "x"})
    served(servers, images.luks(), "key=bao:secret/volumes/a#key",
           env=environment)


def test_field_may_be_left_out_when_there_is_one(servers, images, bao,
                                                 environment):
    bao.put("volumes/one", {"whatever": TEXT})
    served(servers, images.luks(), "key=bao:secret/volumes/one",
           env=environment)
    bao.put("volumes/two", {"a": TEXT, "b": TEXT})
    names(servers.refused(images.luks(), "key=bao:secret/volumes/two",
                          env=environment), "field")


def test_value_that_ends_in_a_newline_is_told(servers, encrypted, bao,
                                              environment):
    """What "echo KEY | bao kv put ... value=-" stores."""
    bao.put("volumes/echoed", {"value": TEXT + "\n"})
    names(servers.refused(encrypted, "key=bao:secret/volumes/echoed",
                          env=environment), "keyslot", "ends with a newline")


def test_vault_variables_serve_where_bao_ones_are_missing(
        servers, images, bao):
    bao.put("volumes/v", {"key": TEXT})
    served(servers, images.luks(), "key=vault:secret/volumes/v#key",
           env={"VAULT_ADDR": bao.address, "VAULT_TOKEN": bao.token,
                "VAULT_CACERT": bao.ca})


def test_bao_variable_beats_the_vault_one(servers, images, bao, environment):
    bao.put("volumes/v", {"key": TEXT})
    served(servers, images.luks(), "key=bao:secret/volumes/v#key",
           env=dict(environment, VAULT_ADDR="https://127.0.0.1:1",
                    VAULT_TOKEN="wrong"))


def test_kv_version_1(servers, images, bao, environment, profile):
    bao.must("POST", "kv1/old", {"key": TEXT})
    served(servers, images.luks(), "key=bao:kv1/old#key", env=environment)
    served(servers, images.luks(), "key=t:old",
           profile(engine="kv1", mount="kv1"))


def test_namespace(servers, images, bao, environment, profile):
    bao.must("POST", "sys/namespaces/tenant", {})
    bao.mount("secret", 2, namespace="tenant")
    bao.put("vol", {"key": TEXT}, namespace="tenant")
    image = images.luks()
    served(servers, image, "key=bao:secret/vol#key",
           env=dict(environment, BAO_NAMESPACE="tenant"))
    served(servers, image, "key=t:vol", profile(namespace="tenant"))
    names(servers.refused(image, "key=t:vol", profile(namespace="nobody")),
          "nobody")


@pytest.mark.parametrize("layout,encoding,record,passphrase", [
    ("field", None, {"key": TEXT}, lab.PASSPHRASE),
    ("field", "text", {"key": "ein Schlüssel"}, "ein Schlüssel".encode()),
    ("field", "hex", {"key": "00ff0a"}, b"\x00\xff\n"),
    ("field", "base64", {"key": base64.b64encode(b"\x00\xff\n").decode()},
     b"\x00\xff\n"),
    ("castellan", None, {
        "type": "symmetric", "value": "746a12758d78", "algorithm": "AES",
        "bit_length": 48, "name": None, "created": 1795424799},
     b"746a12758d78"),
    ("castellan", None, {
        "type": "passphrase", "value": "68756e746572", "algorithm": None,
        "bit_length": None, "name": None, "created": None}, b"hunter"),
    ("raw", None, {"anything": TEXT}, lab.PASSPHRASE),
])
def test_layout(servers, images, bao, profile, layout, encoding, record,
                passphrase):
    bao.put("layout", record)
    image = images.luks(passphrase=passphrase)
    served(servers, image, "key=t:layout", profile(
        layout=layout, field="key" if layout == "field" else None,
        encoding=encoding))


def test_profile_with_prefix_and_token(servers, images, bao, profile):
    bao.put("tenant-a/vol", {"key": TEXT})
    served(servers, images.luks(), "key=t:vol", profile(
        prefix="tenant-a/", auth={"method": "token", "token": bao.token}))


def test_client_certificate_is_sent(servers, images, bao, profile):
    bao.put("volumes/c", {"key": TEXT})
    served(servers, images.luks(), "key=t:volumes/c", profile(
        client_cert=bao.file("client.pem"),
        client_key=bao.file("client.key")))


def test_a_limited_token_is_enough(servers, images, bao, environment):
    bao.put("volumes/l", {"key": TEXT})
    token = bao.limited_token("secret/data/volumes/l",
                              "sys/internal/ui/mounts/*")
    served(servers, images.luks(), "key=bao:secret/volumes/l#key",
           env=dict(environment, BAO_TOKEN=token))


# ---------------------------------------------------------------------
# Refusals.

def test_denied_by_policy(servers, encrypted, bao, environment):
    bao.put("volumes/d", {"key": TEXT})
    token = bao.limited_token("secret/data/something/else",
                              "sys/internal/ui/mounts/*")
    refusal = servers.refused(encrypted, "key=bao:secret/volumes/d#key",
                              env=dict(environment, BAO_TOKEN=token))
    names(refusal, "volumes/d", "denies")


def test_wrong_token(servers, encrypted, bao, environment):
    bao.put("volumes/d", {"key": TEXT})
    refusal = servers.refused(
        encrypted, "key=bao:secret/volumes/d#key",
        env=dict(environment, BAO_TOKEN="s.notthetoken"))
    names(refusal, "token")
    assert "notthetoken" not in "\n".join(refusal.lines)


def test_no_token_at_all(servers, encrypted, bao, environment, tmp_path):
    names(servers.refused(encrypted, "key=bao:secret/volumes/d#key",
                          env=dict(environment, BAO_TOKEN=None,
                                   HOME=str(tmp_path))), "token")


def test_without_an_address_it_is_that_of_the_command_line(servers,
                                                           encrypted):
    """OpenBao's own default: this machine, port 8200."""
    names(servers.refused(encrypted, "key=bao:secret/volumes/d#key",
                          env={"BAO_TOKEN": "s.x"}), "127.0.0.1:8200")


def test_missing_key(servers, encrypted, environment):
    names(servers.refused(encrypted, "key=bao:secret/volumes/none#key",
                          env=environment), "volumes/none")


def test_blanks_in_a_name_can_be_seen(servers, encrypted, environment, bao):
    bao.put("volumes/blank", {"key": TEXT})
    names(servers.refused(encrypted, "key=bao:secret/volumes/blank ",
                          env=environment),
          'no key "secret/volumes/blank " in the mount secret')


def test_missing_mount(servers, encrypted, environment):
    names(servers.refused(encrypted, "key=bao:nomount/vol#key",
                          env=environment), "nomount")


def test_deleted_and_destroyed_keys_are_told_apart(servers, encrypted, bao,
                                                   environment):
    bao.put("volumes/del", {"key": TEXT})
    bao.must("DELETE", "secret/data/volumes/del")
    names(servers.refused(encrypted, "key=bao:secret/volumes/del#key",
                          env=environment), "deleted")
    bao.must("PUT", "secret/destroy/volumes/del", {"versions": [1]})
    names(servers.refused(encrypted, "key=bao:secret/volumes/del#key",
                          env=environment), "destroyed")


@pytest.mark.parametrize("record,word", [
    ({"other": "x"}, "key"), ({"key": None}, "null"), ({"key": 7}, "string"),
    ({"key": ""}, "empty"), ({"key": {"a": "b"}}, "string")])
def test_bad_field(servers, encrypted, bao, profile, record, word):
    bao.put("bad", record)
    names(servers.refused(encrypted, "key=t:bad", profile()), word)


@pytest.mark.parametrize("encoding,value", [
    ("hex", "abc"), ("hex", "zz"), ("hex", "ab cd"), ("base64", "A"),
    ("base64", "AA=A"), ("base64", "A A=")])
def test_bad_encoding_is_named_and_not_repeated(
        servers, encrypted, bao, profile, encoding, value):
    bao.put("bad", {"key": "hunter2" + value})
    refusal = servers.refused(encrypted, "key=t:bad",
                              profile(encoding=encoding))
    names(refusal, "key")
    assert "hunter2" not in "\n".join(refusal.lines)


@pytest.mark.parametrize("record", [
    {"value": "00ff"}, {"type": "symmetric"},
    {"type": "symmetric", "value": "xyz"},
    {"type": "certificate", "value": "00ff"},
    {"type": 1, "value": "00ff"}, {"type": "symmetric", "value": ""}])
def test_bad_castellan_record(servers, encrypted, bao, profile, record):
    bao.put("bad", record)
    refusal = servers.refused(encrypted, "key=t:bad",
                              profile(layout="castellan", field=None))
    names(refusal, "bad")


def test_sealed(servers, images, bao, environment):
    image = images.luks()
    bao.put("volumes/s", {"key": TEXT})
    bao.seal()
    try:
        names(servers.refused(image, "key=bao:secret/volumes/s#key",
                              env=environment), "sealed")
    finally:
        bao.unseal()
    served(servers, image, "key=bao:secret/volumes/s#key", env=environment)


def test_nobody_listens(servers, encrypted, environment):
    names(servers.refused(encrypted, "key=bao:secret/v#key", env=dict(
        environment, BAO_ADDR="https://127.0.0.1:1")), "127.0.0.1:1")


def test_wrong_certificate(servers, encrypted, bao, environment):
    names(servers.refused(encrypted, "key=bao:secret/v#key", env=dict(
        environment, BAO_CACERT=bao.other_ca)), "certificate")


def test_certificate_of_another_name(servers, encrypted, bao, environment):
    """This machine has more names than its certificate."""
    address = bao.address.replace("127.0.0.1", "another.localhost")
    names(servers.refused(encrypted, "key=bao:secret/v#key", env=dict(
        environment, BAO_ADDR=address)), "another.localhost")


def test_plain_http_is_refused_beyond_this_machine(servers, encrypted,
                                                   environment, profile):
    """192.0.2.1 is unused (RFC 5737): nothing may be sent there."""
    for refusal in (
            servers.refused(encrypted, "key=bao:secret/v#key", env=dict(
                environment, BAO_ADDR="http://192.0.2.1:8200")),
            servers.refused(encrypted, "key=t:v", profile(
                address="http://192.0.2.1:8200"))):
        names(refusal, "http")
        assert refusal.seconds < lab.AT_ONCE


@pytest.mark.parametrize("reply,words", [
    (fake_kms.answer("200 OK", b"<html><body>Welcome</body></html>",
                     ["Content-Type: text/html"]), ["JSON"]),
    (fake_kms.answer("200 OK", b""), []),
    (fake_kms.answer("200 OK", b"[]"), []),
    (fake_kms.answer("200 OK", b'{"data":'), []),
    (fake_kms.answer("200 OK", b'{"data":null}'), []),
    (fake_kms.answer("200 OK", b'{"data":{"data":[1,2]}}'), []),
    (fake_kms.answer("200 OK", b"[" * 100000), []),
    (fake_kms.answer("200 OK", b'{"data":"' + b"x" * 10 * MIB + b'"}'), []),
    (fake_kms.answer("302 Found", b"", [
        "Location: https://elsewhere.example.com/"]), ["redirect"]),
    (fake_kms.answer("404 Not Found", b"<html>no such page</html>"), []),
    (fake_kms.answer("500 Oops", b'{"errors":["internal error"]}'), ["500"]),
    (fake_kms.answer("503 No", b'{"errors":["Vault is sealed"]}'),
     ["sealed"]),
    (fake_kms.answer("999 Strange", b""), []),
    (fake_kms.closing, []),
    (fake_kms.endless_headers, []),
], ids=["html", "empty", "array", "cut-off", "null", "wrong-type", "deep",
        "10-MiB", "redirect", "404-html", "500", "503", "999",
        "hangs-up", "endless-headers"])
def test_server_that_answers_nonsense(
        servers, encrypted, misbehaving, profile, reply, words):
    with misbehaving(reply) as server:
        refusal = servers.refused(encrypted, "key=t:v",
                                  profile(address=server.address))
        names(refusal, server.address.split("//")[1], *words)
        assert server.requests


@pytest.mark.parametrize("reply", [fake_kms.silent, fake_kms.dripping],
                         ids=["silent", "dripping"])
def test_server_that_is_too_slow_ends_in_the_limit(
        servers, encrypted, misbehaving, profile, reply):
    with misbehaving(reply) as server:
        refusal = servers.refused(encrypted, "key=t:v",
                                  profile(address=server.address), limit=24)
        names(refusal, server.address.split("//")[1])
        # Ten of them are the profile's.
        assert refusal.seconds < 10 + lab.AT_ONCE


@pytest.fixture
def silent_later(misbehaving):
    """Gives the key once, to the rehearsal, and is black-holed then."""
    body = json.dumps({"data": {"data": {"key": TEXT}, "metadata": {
        "version": 1}}}).encode()
    right = fake_kms.answer("200 OK", body)

    def reply(server, connection):
        if len(server.requests) > 1:
            fake_kms.silent(server, connection)
        else:
            right(server, connection)
    with misbehaving(reply) as server:
        yield server


def test_server_that_falls_silent_leaves_no_client_hanging(
        servers, encrypted, profile, silent_later):
    server = servers.start(encrypted, "key=t:v", profile(
        address=silent_later.address, timeout=5))
    server.expected_status = None
    try:
        with server.connect(timeout=30) as c:
            assert c.size == encrypted.size  # the rehearsal's key was kept
    except lab.Refused:
        server.says(silent_later.address.split("//")[1])
    server.stop(12)


def test_server_that_falls_silent_does_not_delay_the_end(
        servers, encrypted, profile, silent_later):
    server = servers.start(encrypted, "key=t:v",
                           profile(address=silent_later.address))
    begin = time.monotonic()
    assert server.stop(12) == 0
    assert time.monotonic() - begin < lab.AT_ONCE


def test_profiles_own_timeout_is_kept(
        servers, encrypted, misbehaving, profile):
    with misbehaving(fake_kms.silent) as server:
        refusal = servers.refused(encrypted, "key=t:v", profile(
            address=server.address, timeout=2))
        assert refusal.seconds < lab.AT_ONCE
        names(refusal, server.address.split("//")[1])


def test_hostile_error_text_does_not_forge_log_lines(
        servers, encrypted, misbehaving, profile):
    body = json.dumps({"errors": [
        "\nnbdkit: error: forged\x1b[31m" + "x" * 5000]}).encode()
    with misbehaving(fake_kms.answer("400 Bad", body)) as server:
        refusal = servers.refused(encrypted, "key=t:v",
                                  profile(address=server.address))
        assert "\x1b" not in "".join(refusal.lines)
        assert len(refusal.sentence) < 1200


def test_the_token_goes_to_nobody_but_the_server(
        servers, encrypted, misbehaving, profile, bao):
    """A redirect is not followed."""
    with misbehaving(fake_kms.answer("200 OK", b"{}")) as other:
        reply = fake_kms.answer("307 Temporary Redirect", b"",
                                ["Location: %s/v1/x" % other.address])
        with misbehaving(reply) as server:
            servers.refused(encrypted, "key=t:v",
                            profile(address=server.address))
            assert server.requests
        assert other.requests == []


def test_key_is_fetched_once_for_many_connections(servers, images, bao,
                                                  misbehaving, profile):
    body = json.dumps({"data": {"data": {"key": TEXT}, "metadata": {
        "version": 1}}}).encode()
    image = images.luks()
    with misbehaving(fake_kms.answer("200 OK", body)) as server:
        s = servers.start(image, "key=t:v", profile(address=server.address))
        for _ in range(5):
            with s.connect() as c:
                assert c.size == image.size
        # Once in the rehearsal, once by the session.
        assert len(server.requests) <= 2


@pytest.mark.parametrize("reference", [
    "bao:", "bao:secret", "bao:/secret/x", "bao:secret/", "bao:secret//x",
    "bao:secret/../sys/seal", "bao:secret/x/..", "bao:secret/x?version=1",
    "bao:secret/%2e%2e/x", "bao:secret/x#", "bao:secret/x#a#b",
    pytest.param("bao:" + "n" * 4096, id="4-KiB")])
def test_bad_reference_is_refused_before_anything_is_asked(
        servers, encrypted, misbehaving, environment, reference):
    with misbehaving(fake_kms.answer("200 OK", b"{}")) as server:
        servers.refused(encrypted, "key=" + reference, env=dict(
            environment, BAO_ADDR=server.address))
        assert server.requests == []
