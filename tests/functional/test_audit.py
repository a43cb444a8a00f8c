# SPDX-License-Identifier: BSD-3-Clause
"""The audit trail: who had which key when, and never a value."""

import datetime
import json
import os
import subprocess

import pytest

import lab
from lab import journal as journals
from lab.records import image_id
from lab.trail import of, read


@pytest.fixture
def profile(bao, profiles_file):
    """profile() -> profiles= of a file with the profile "audited"."""
    return lambda: profiles_file(audited=bao.profile(
        mount="secret", prefix="audit/", layout="field", field="value"))


def test_each_event_of_a_good_day_is_told(servers, encrypted, bao, profile,
                                          tmp_path):
    bao.put("audit/vol", {"value": lab.PASSPHRASE.decode()})
    trail = tmp_path / "audit.json"
    server = servers.start(encrypted, "key=audited:vol", profile(),
                           "audit=%s" % trail)
    with server.connect() as c:
        c.read(4096, 0)
    lab.await_(lambda: of(read(trail), "detach"), 10, "a detach is told")
    server.stop()
    lines = read(trail)
    assert [e["event"] for e in lines] == \
        ["fetch", "unlock", "attach", "detach"], lines
    assert trail.stat().st_mode & 0o777 == 0o600
    for e in lines:
        assert e["outcome"] == "ok", e
        assert e["image"] == encrypted.spec, e
        assert e["image_id"] == image_id(encrypted), e
        assert (e["profile"], e["key"]) == ("audited", "audited:vol"), e
        then = datetime.datetime.fromisoformat(e["time"].replace("Z",
                                                                 "+00:00"))
        now = datetime.datetime.now(datetime.timezone.utc)
        assert abs((now - then).total_seconds()) < 60, e
    for e in of(lines, "attach") + of(lines, "detach"):
        assert (e["peer_uid"], e["peer_pid"]) == (os.getuid(), os.getpid()), e


def test_the_request_is_found_in_the_servers_own_log(servers, encrypted, bao,
                                                     profile, tmp_path):
    bao.put("audit/vol", {"value": lab.PASSPHRASE.decode()})
    trail = tmp_path / "audit.json"
    servers.start(encrypted, "key=audited:vol", profile(),
                  "audit=%s" % trail)
    wanted = of(read(trail), "fetch")[0]["request_id"]
    assert set(bao.paths(wanted)) == {"secret/data/audit/vol"}, wanted


def test_barbicans_requests_are_found_in_its_own_log(
        servers, encrypted, barbican, profiles_file, tmp_path):
    ident = barbican.secret(lab.PASSPHRASE, "passphrase")
    trail = tmp_path / "audit.json"
    server = servers.start(
        encrypted, "key=cloud:" + ident, "recheck=1",
        profiles_file(cloud=barbican.profile(timeout=10)),
        "audit=%s" % trail)
    barbican.delete(ident)
    lab.await_(lambda: of(read(trail), "revoke"), 20, "a revocation is told")
    [fetch], [revoke] = of(read(trail), "fetch"), of(read(trail), "revoke")
    assert (revoke["outcome"], revoke["key"]) == ("gone", "cloud:" + ident)
    assert fetch["request_id"] != revoke["request_id"]
    for e, status in (fetch, "200 OK"), (revoke, "404 Not Found"):
        _, found, after = barbican.read("barbican.log").partition(
            "Begin processing request %s\n" % e["request_id"])
        assert found, e
        [processed] = [line for line in after.splitlines()
                       if "Processed request: " in line][:1]
        assert status in processed and ident in processed, processed
    server.expected_status = 0


def test_a_refusal_is_told_with_its_class(servers, encrypted, bao, profile,
                                          tmp_path):
    trail = tmp_path / "audit.json"
    refusal = servers.refused(encrypted, "key=audited:nothing-here",
                              profile(), "audit=%s" % trail)
    [e] = read(trail)
    assert (e["event"], e["outcome"]) == ("fetch", "gone")
    assert e["why"] in refusal.sentence


def test_a_wrong_key_is_told(servers, encrypted, files, tmp_path):
    trail = tmp_path / "audit.json"
    servers.refused(encrypted, "key=file:" + files("k", "another"),
                    "audit=%s" % trail)
    lines = read(trail)
    assert of(lines, "unlock")[0]["outcome"] == "wrong-key", lines


def test_a_peer_that_may_not_connect_is_told(servers, encrypted, key,
                                             tmp_path):
    trail = tmp_path / "audit.json"
    port = lab.free_port()
    server = servers.start(encrypted, key, "audit=%s" % trail,
                           options=("-p", str(port), "-i", "127.0.0.1"))
    with pytest.raises(lab.Refused):
        lab.Client.connect(None, port=port)
    [e] = of(read(trail), "refusal")
    assert e["outcome"] == "not-allowed", e
    assert "only local Unix socket clients" in e["why"], e
    assert "peer_pid" not in e
    server.stop()


def test_clients_that_a_shutdown_cuts_off_are_told(servers, encrypted, key,
                                                   tmp_path):
    trail = tmp_path / "audit.json"
    server = servers.start(encrypted, key, "audit=%s" % trail)
    server.connect()
    server.connect()
    server.stop()
    outcomes = [e["outcome"] for e in of(read(trail), "detach")]
    assert outcomes == ["shutdown", "shutdown"]


def test_no_secret_is_in_the_trail(servers, encrypted, bao, profile,
                                   tmp_path):
    bao.put("audit/vol", {"value": lab.PASSPHRASE.decode()})
    trail = tmp_path / "audit.json"
    server = servers.start(encrypted, "key=audited:vol", profile(),
                           "audit=%s" % trail)
    server.connect()
    server.stop()
    text = trail.read_bytes()
    assert lab.PASSPHRASE not in text
    assert bao.token.encode() not in text


def test_two_servers_share_a_file(servers, encrypted, key, tmp_path):
    trail = tmp_path / "audit.json"
    both = [servers.start(encrypted, key, "audit=%s" % trail)
            for _ in range(2)]
    for _ in range(20):
        for server in both:
            server.connect().close()
    for server in both:
        server.stop()
    lines = read(trail)
    assert len(of(lines, "attach")) == len(of(lines, "detach")) == 40
    assert {e["pid"] for e in of(lines, "attach")} == {s.pid for s in both}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    where = tmp_path / "small"
    where.mkdir()
    lab.run("mount", "-t", "tmpfs", "-o", "size=64k,mode=0755", "none", where)
    yield where
    lab.run("umount", where)


def test_a_full_disk_stops_nothing_and_is_told(servers, encrypted, key,
                                               small_disk):
    trail = small_disk / "audit.json"
    server = servers.start(encrypted, key, "audit=%s" % trail)
    filler = small_disk / "filler"
    # To the last byte, so that the next line is cut.
    subprocess.run(["dd", "if=/dev/zero", "of=%s" % filler, "bs=512"],
                   stderr=subprocess.DEVNULL, check=False, timeout=30)
    data = lab.pattern(4096, 1)
    for _ in range(40):
        with server.connect() as c:
            c.write(data, 0)
            c.flush()
            assert c.read(4096, 0) == data
    errors = [s for s in server.lines() if "audit" in s]
    assert len(errors) == 1, errors
    filler.unlink()
    server.connect().close()
    lab.await_(lambda: "is written again" in server.stderr()
               or any("loss" in s for s in
                      trail.read_text(errors="replace").splitlines()),
               10, "the loss is told")
    good = []
    for line in trail.read_text(errors="replace").splitlines():
        try:
            good.append(json.loads(line))
        except ValueError:
            pass  # the line that the disk had no room for
    [loss] = of(good, "loss")
    assert loss["lost"] > 0, loss
    assert of(good, "attach")[-1]["outcome"] == "ok"
    server.stop()


@pytest.mark.parametrize("value, word", [
    ("audit", "\"/\""), ("/nonexistent/x/audit", "audit"), ("/", "audit"),
])
def test_what_cannot_be_written_is_refused_at_the_start(servers, encrypted,
                                                        key, value, word):
    refusal = servers.refused(encrypted, key, "audit=" + value)
    assert word in refusal.sentence


def test_a_file_that_others_may_write_is_refused(servers, encrypted, key,
                                                 files):
    path = files("audit.json", "\n", mode=0o666)
    refusal = servers.refused(encrypted, key, "audit=" + path)
    assert path in refusal.sentence


# ---------------------------------------------------------------------
# The journal: a real systemd-journald.

@pytest.fixture
def journal(servers):
    with journals.Journal(servers.dir) as j:
        yield j


def ours(entry):
    """The fields that we wrote, by their names in a file."""
    return {k[len("RBDCRYPT_"):].lower(): v for k, v in entry.items()
            if k.startswith("RBDCRYPT_")}


def events(journal):
    return [e["RBDCRYPT_EVENT"] for e in journal.read()]


def test_the_journal_has_the_same_fields_as_a_file(servers, encrypted, bao,
                                                   profile, tmp_path,
                                                   journal):
    """One server after the other: the trails differ in times and ids."""
    bao.put("audit/vol", {"value": lab.PASSPHRASE.decode()})
    trail = tmp_path / "audit.json"
    for where in ("%s" % trail, "journal"):
        server = servers.start(encrypted, "key=audited:vol", profile(),
                               "audit=" + where, prefix=journal.prefix)
        server.connect().close()
        lab.await_(lambda: "detach" in (
            events(journal) if where == "journal"
            else [e["event"] for e in read(trail)]), 10, "a detach is told")
        server.stop()
    lines, entries = read(trail), journal.read()
    assert [e["event"] for e in lines] == \
        ["fetch", "unlock", "attach", "detach"]
    for line, entry in zip(lines, entries, strict=True):
        for own in ("time", "pid"):
            line.pop(own)
        fields = ours(entry)
        if "request_id" in line:
            assert len(fields.pop("request_id")) == \
                len(line.pop("request_id")), entry
        assert fields == {k: str(v) for k, v in line.items()}
        assert entry["PRIORITY"] == "6", entry
        assert entry["MESSAGE"] == "%s: %s, key audited:vol: ok" % (
            line["event"], encrypted.spec)
        assert entry["_TRANSPORT"] == "journal"
    # The kernel's word for who wrote it; the rehearsal is a child.
    assert {e["_PID"] for e in entries if ours(e)["event"] != "fetch"} == \
        {str(server.pid)}
    found = journal.read("RBDCRYPT_IMAGE=" + encrypted.spec,
                         "RBDCRYPT_EVENT=attach")
    assert len(found) == 1


def test_a_refusal_in_the_journal_is_a_warning(servers, encrypted, profile,
                                               journal):
    refusal = servers.refused(encrypted, "key=audited:nothing-here",
                              profile(), "audit=journal",
                              prefix=journal.prefix)
    [entry] = lab.await_(journal.read, 10, "the refusal is told")
    fields = ours(entry)
    assert (fields["event"], fields["outcome"]) == ("fetch", "gone")
    assert fields["why"] in refusal.sentence
    assert entry["PRIORITY"] == "4", entry


def test_a_journal_that_takes_nothing_stops_nothing(servers, encrypted, key,
                                                    journal):
    """It is the default where it is there."""
    server = servers.start(encrypted, key, prefix=journal.prefix)
    server.connect().close()
    lab.await_(lambda: "detach" in events(journal), 10, "a detach is told")
    before = len(events(journal))
    journal.pause()
    data = lab.pattern(4096, 3)
    attached = 0
    # Until its socket is full, and some more.
    while "audit" not in server.stderr() and attached < 2000:
        server.connect().close()
        attached += 1
    for _ in range(5):
        with server.connect() as c:
            c.write(data, 0, timeout=20)
            c.flush(timeout=20)
            assert c.read(4096, 0, timeout=20) == data
        attached += 1
    errors = [s for s in server.lines() if "audit" in s]
    assert len(errors) == 1 and "journal" in errors[0], errors
    journal.go_on()

    def told():
        server.connect().close()
        nonlocal attached
        attached += 1
        return "loss" in events(journal)
    lab.await_(told, 20, "the loss is told")
    server.stop()
    lab.await_(lambda: events(journal).count("detach") > 0
               and _complete(journal, before, attached), 10,
               "what is missing is counted")


def _complete(journal, before, attached):
    """Each client has two lines, or is among the lost ones."""
    lost = sum(int(e["RBDCRYPT_LOST"])
               for e in journal.read("RBDCRYPT_EVENT=loss"))
    seen = [e for e in events(journal)[before:] if e != "loss"]
    return len(seen) + lost == 2 * attached


def test_no_journal_is_said_where_it_was_asked_for(servers, encrypted, key):
    refusal = servers.refused(encrypted, key, "audit=journal",
                              prefix=journals.NONE)
    assert "audit=journal: /run/systemd/journal/socket" in refusal.sentence
    server = servers.start(encrypted, key, prefix=journals.NONE)
    server.connect().close()
    assert server.stop() == 0
    assert "audit" not in server.stderr()
