# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark's arithmetic and its refusals; nothing is measured."""

import copy
import fnmatch
import json
import os
import re
import socket
import subprocess
import sys

import pytest

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..",
                     "bench")
sys.path.insert(0, BENCH)

import bench  # noqa: E402
import build  # noqa: E402
import compare  # noqa: E402
import figures  # noqa: E402
import fio  # noqa: E402
import fleet  # noqa: E402
import guest  # noqa: E402
import lab  # noqa: E402
import link  # noqa: E402
import peers  # noqa: E402
import pool  # noqa: E402
import remote  # noqa: E402
import report  # noqa: E402
import session  # noqa: E402
import targets  # noqa: E402
import workloads  # noqa: E402
from ledger import Ledger  # noqa: E402
from workloads import MIB, Workload  # noqa: E402

ROW = Workload("1M", "read", 8)


def sample(rate, **more):
    return dict({"rate": rate, "bytes": 3 * rate, "operations": 3000,
                 "client_cpu": 1.0}, **more)


def results(**rates):
    """Those of one row: lists of MiB/s, a value for each round."""
    names = {i.replace("_", "-"): r for i, r in rates.items()}
    titles = {p.ident: p.title for p in peers.standard()}
    return {
        "identity": {"workloads": [ROW.name], "peers": list(names),
                     "commit": "c", "rounds": 3, "seconds": 3,
                     "image_mib": 1024},
        "machine": {"cpu": "one"}, "date": "today", "minutes": 1,
        "full": False, "missing": {}, "settings": None,
        "peers": {i: titles[i] for i in names},
        "cells": {"%s|%s" % (ROW.name, i): [
            sample(r * MIB) for r in values]
            for i, values in names.items()}}


def run(*argv, **env):
    return subprocess.run(
        ["/usr/bin/python3", os.path.join(BENCH, "run"), *argv], text=True,
        capture_output=True, timeout=60,
        env=dict(os.environ, PYTHONDONTWRITEBYTECODE="1", **env))


def test_limit_is_the_better_engine_and_the_hop_in_series():
    found = figures.Figures(results(
        fio_default=[300, 310, 290], fio_ours=[600, 610, 590],
        null=[3000, 3100, 2900]))
    assert found.direct(ROW)[0] == "fio-ours"
    assert found.limit(ROW).median == pytest.approx(1 / (1 / 600 + 1 / 3000))


def test_a_row_with_connections_has_the_limit_of_as_much_in_flight():
    row = Workload("1M", "read", 8, connections=4)
    assert row.single().name == "1M read, depth 32"
    # Such rows are in the table.
    names = [w.name for w in workloads.ALL]
    for w in workloads.CONNECTIONS:
        assert w.single().name in names or w.random, w.name


def test_ratio_is_the_median_of_those_within_the_rounds():
    ratio = figures.Spread([100, 240, 90]) / figures.Spread([100, 200, 100])
    assert (ratio.median, ratio.low, ratio.high) == (1.0, 0.9, 1.2)


def test_verdict_says_when_another_run_could_say_otherwise():
    def verdict(*values):
        return targets.Target("", figures.Spread(values), 1.0, "").verdict
    assert verdict(0.9, 0.95, 0.99) == "**missed**"
    assert verdict(0.9, 0.95, 1.01) == "**missed**, within the spread"
    assert verdict(0.99, 1.01, 1.02) == "met, within the spread"
    assert verdict(1.01, 1.02, 1.03) == "met"


def test_memory_of_a_column_with_few_rows_is_no_target():
    data = results(rbdcrypt_luks2=[500] * 3, rbdcrypt_tcmalloc=[500] * 3)
    data["memory"] = {p: [{"steady": 50, "peak": 90}] * 3
                      for p in data["peers"]}

    def found(subject):
        return [t for t in targets.evaluate(data, subject)
                if "resident" in t.figure]
    assert found("rbdcrypt-luks2") and not found("rbdcrypt-tcmalloc")


def test_target_is_a_share_of_the_limit_where_that_is_lower():
    data = results(rbdcrypt_luks2=[570, 570, 570], qemu_luks2=[500] * 3,
                   fio_default=[720, 720, 720], null=[3600] * 3)
    found = [t for t in targets.evaluate(data)
             if "qemu-nbd librbd LUKS2" in t.figure]
    # 1.5 times 500 is more than 0.95 of 600.
    assert [t.needed for t in found] == [pytest.approx(0.95 * 600 / 500)]
    assert found[0].met
    data["cells"][ROW.name + "|rbdcrypt-luks2"] = [sample(560 * MIB)] * 3
    found = [t for t in targets.evaluate(data)
             if "qemu-nbd librbd LUKS2" in t.figure]
    assert not found[0].met and found[0].distance < 0


def test_comparison_names_what_is_slower_beyond_the_spread():
    old = results(rbdcrypt_luks2=[500, 520, 480], qemu_plain=[400, 420, 380])
    new = copy.deepcopy(old)
    new["cells"][ROW.name + "|rbdcrypt-luks2"] = [
        sample(r * MIB) for r in (400, 420, 479)]
    new["cells"][ROW.name + "|qemu-plain"] = [
        sample(r * MIB) for r in (300, 381, 320)]
    worse = [c.what for c in compare.changes(old, new) if c.worse]
    assert worse == ["cells: 1M read, depth 8|rbdcrypt-luks2"]
    assert "rbdcrypt-luks2" in compare.text(old, new)
    assert not [c for c in compare.changes(old, old) if c.worse or c.better]


def test_comparison_tells_which_ratios_another_run_repeats():
    old = results(rbdcrypt_luks2=[900, 910, 890], qemu_plain=[800, 810, 790],
                  qemu_luks2=[500, 505, 495])
    new = copy.deepcopy(old)
    new["cells"][ROW.name + "|qemu-plain"] = [
        sample(r * MIB) for r in (1000, 1010, 990)]
    agree, differ = compare.ratios(old, new)
    assert [f for f, _, _ in agree] == [
        "1M read, depth 8, against qemu-nbd librbd LUKS2"]
    assert [f for f, _, _ in differ] == [
        "1M read, depth 8, against qemu-nbd plain"]
    text = compare.text(old, new)
    assert "1 of 2 agree" in text
    assert "another verdict: 1M read, depth 8, against qemu-nbd plain: " \
        "met, now **missed**" in text


def test_comparison_sees_what_a_request_costs():
    old = results(rbdcrypt_luks2=[500] * 3)
    new = copy.deepcopy(old)
    for data, cpu in ((old, 1.0), (new, 1.2)):
        for s in data["cells"][ROW.name + "|rbdcrypt-luks2"]:
            s.update(server_cpu=cpu, p99=cpu)
    assert sorted(c.how for c in compare.changes(old, new) if c.worse) == [
        "p99", "server's CPU"]


def test_parts_of_a_later_run_are_named():
    old, new = results(rbdcrypt_luks2=[5] * 3), results(rbdcrypt_luks2=[6] * 3)
    for data, mib in (old, 100), (new, 200):
        data["trim"] = {"trim-" + p: [dict.fromkeys(
            ("full", "trimmed", "exact"), mib * MIB)]
            for p in ("plain", "openssl")}
        data["memory"] = {}
    old["missing"] = {"trim": "no kernel"}
    new["identity"]["commit"] = "later"
    whole = session.into(old, new, ["trim"])
    text = report.text(whole)
    assert "The part `trim` was measured at commit later on today." in text
    assert "| QEMU rbd plain | 200 | 200 | 200 |" in text
    assert "no kernel" not in text
    assert whole["cells"] != new["cells"]
    new["identity"]["nbdkit"] = "another"
    assert "nbdkit is None and another" == compare.unlike(
        old, new, compare.EXACTLY)


def test_runs_of_another_kind_are_not_compared():
    old = results(rbdcrypt_luks2=[500] * 3)
    new = copy.deepcopy(old)
    new["identity"]["seconds"] = 2
    with pytest.raises(ValueError, match="seconds is 3 and 2"):
        compare.text(old, new)


def test_comparison_takes_the_machine_s_day_out():
    """Everything half as fast: that is not this plugin."""
    old = results(rbdcrypt_luks2=[500, 520, 480], fio_default=[600, 620, 590])
    new = results(rbdcrypt_luks2=[250, 260, 240], fio_default=[300, 310, 295])
    changes = {c.what: c for c in compare.changes(old, new)}
    ours = changes["cells: 1M read, depth 8|rbdcrypt-luks2"]
    assert not ours.worse, ours.text()


def test_comparison_takes_it_out_beyond_a_link_too():
    old = on_a_link(fio_default=[340, 350, 345], rbdcrypt_luks2=[300] * 3)
    new = on_a_link(fio_default=[170, 175, 172], rbdcrypt_luks2=[150] * 3)
    changes = [c for c in compare.changes(old, new) if "luks2" in c.what]
    assert changes and not [c for c in changes if c.worse]


def test_missing_peer_has_a_name_and_an_empty_column():
    data = results(rbdcrypt_luks2=[500, 520, 480])
    data["missing"] = {"qemu-plain": "qemu-nbd is not installed"}
    text = report.text(data)
    assert "qemu-plain is missing: qemu-nbd is not installed" in text
    assert "| workload | rbdcrypt LUKS2 | qemu-plain (missing) |" in text
    assert "| 1M read, depth 8, MiB/s | 500 (480–520) |  |" in text


def test_peers_take_turns():
    some = list("abcde")
    firsts = {bench.turned(some, turn, 0)[0] for turn in range(5)}
    assert len(firsts) > 3
    for turn in range(5):
        for number in range(7):
            assert sorted(bench.turned(some, turn, number)) == some


def test_windows_lie_in_the_image_and_move():
    image = 1024 * MIB
    for w in workloads.ALL:
        seen = set()
        for turn in range(5):
            offset, size = w.window(image, turn)
            assert 0 <= offset and offset + size <= image, w.name
            seen.add(offset)
        assert w.random or len(seen) > 1, w.name


def test_a_full_run_is_planned_for_90_minutes_at_most(tmp_path):
    class Arguments:
        quick = complete = mine = resume = False
        rounds = seconds = image = only = peers = sections = None
        pool = conf = None
        plugin = variant = ()
    choice = session.Choice(Arguments)
    assert choice.full
    b = bench.Bench(str(tmp_path), pool.Pool(str(tmp_path)), "plugin",
                    choice.image, choice.rounds, choice.seconds)
    ledger = Ledger(str(tmp_path / "ledger"), {}, resume=False)
    for name in choice.sections:
        session.make_part(name, b, peers.standard(), choice).plan(ledger)
    # Three minutes are for the cluster, the first images and the end.
    assert b.clock.left() / 60 <= 87


def on_a_link(**rates):
    """Those of the operator's link, 1M read, depth 8, in MiB/s."""
    data = results(rbdcrypt_luks2=[5] * 3)
    data["cells"] = {}
    data["remote"] = {
        "%s|%s|%s" % (remote.PLACES[0].ident, ROW.name, i.replace("_", "-")):
        [sample(r * MIB) for r in values] for i, values in rates.items()}
    data["remote"]["link|operator"] = [
        {"round_trip": 750, "rate": 366e6}] * 3
    return data


def test_rates_beyond_a_link_stand_beside_an_operator_s_own():
    data = on_a_link(fio_default=[340, 350, 345], qemu_luks1=[200] * 3,
                     qemu_luks2=[300] * 3, rbdcrypt_luks2=[345, 343, 344],
                     rbdcrypt_openssl=[340] * 3, threads_2=[200] * 3)
    text = report.text(data)
    assert "2,930 Mbit/s and 350 µs each way. Measured: round trip " \
        "750 (750–750) µs, 2928 (2928–2928) Mbit/s." in text
    own = "| 1M read, depth 8, MiB/s | 349 | 0.57 | 0.99 | 345 | 0.58 | " \
        "0.87 | 1.00 | 0.99 |"
    assert own in text and own in report.readme(data)
    assert text.index(own) < text.index("## Targets")
    assert "| rbdcrypt LUKS2, nbdkit -t 2 |" in text


def test_targets_on_a_link_are_those_of_each_engine():
    data = on_a_link(fio_default=[350] * 3, qemu_luks1=[200] * 3,
                     rbdcrypt_luks2=[340] * 3, rbdcrypt_openssl=[349] * 3)
    data["peers"]["rbdcrypt-openssl"] = "openssl"

    def met(subject):
        return {t.figure: t.met for t in targets.evaluate(data, subject)
                if "link" in t.figure}
    plain = "on the operator's link, 1M read, depth 8, against fio rbd plain"
    luks = "on the operator's link, 1M read, depth 8, against QEMU LUKS"
    assert met(peers.PLUGIN) == {plain: False, luks: True}
    assert met(peers.OPENSSL) == {plain: True, luks: True}


def test_rows_beyond_a_link_are_rows_of_the_table():
    names = [w.name for w in workloads.ALL]
    assert all(w.name in names for w in remote.WORKLOADS)
    rows = [w.name for w in remote.WORKLOADS]
    assert all(n in rows for n in remote.ELSEWHERE + remote.WRITES
               + list(remote.PUBLISHED))


def test_a_link_delays_limits_and_ends_what_runs_beyond_it(tmp_path):
    there = link.Link(remote.program(str(tmp_path)))
    try:
        there.set(3000, 400)

        def limited():
            """What has waited for this process comes at once."""
            found = there.calibrate()
            return found if found["rate"] < 1.05 * 50e6 else None
        found = lab.await_(limited, 60, "50 MB/s at most")
        assert 6000 < found["round_trip"] < 60000
        assert found["rate"] > 5e6
        program = tmp_path / "sleeper"
        program.symlink_to("/usr/bin/sleep")
        lab.run(*there.far(["sh", "-c", str(program) + " 600 & :"]),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # The shell ends before its child has become that program.
        lab.await_(lambda: link.processes("sleeper", str(tmp_path)), 10,
                   "the program runs")
    finally:
        there.stop()
    assert not link.processes("sleeper", str(tmp_path))


def preload(directory):
    return build.compiled(os.path.join(BENCH, "preload.c"),
                          str(directory / "preload.so"), "-shared", "-fPIC")


def test_writers_flush_first_and_last(tmp_path):
    """What write-behind is measured with."""
    client = fio.command(["--name=job", "--ioengine=nbd", "--uri=$uri",
                          *Workload("4K", "write", 4).fio(64 * MIB, 0, 1)])
    log = tmp_path / "log"
    lab.run("nbdkit", "-U", "-", "--filter=log", "memory", "64M",
            "logfile=%s" % log, "--run", "LD_PRELOAD=%s timeout 30 %s" % (
                preload(tmp_path), " ".join(client)))
    # The first connection asks for the size only.
    asked = re.findall(r"connection=2 (Write|Flush) ", log.read_text())
    assert (asked[0], asked[1], asked[-1]) == ("Flush", "Write", "Flush")
    assert "--end_fsync=1" not in ROW.fio(64 * MIB, 0, 1)


def test_a_send_buffer_is_that_of_accepted_connections(tmp_path):
    text = "import socket\n" \
        "s = socket.create_server(('127.0.0.1', 0))\n" \
        "c = socket.create_connection(s.getsockname())\n" \
        "print(s.accept()[0].getsockopt(socket.SOL_SOCKET, " \
        "socket.SO_SNDBUF))"
    out = lab.run("/usr/bin/python3", "-c", text, env=dict(
        os.environ, LD_PRELOAD=preload(tmp_path), BENCH_SNDBUF="50000"))
    assert int(out.stdout) == 100000  # the kernel doubles it


def test_a_column_that_only_writes_has_no_reads():
    through = [p for p in peers.standard() if p.ident == peers.THROUGH][0]
    for complete in True, False:
        assert bench.applies(Workload("4K", "write", 16), through, complete)
        assert not bench.applies(ROW, through, complete)
        assert not remote.applies(remote.PLACES[0], ROW, through, complete)


def test_variants_are_disks_of_the_guest(tmp_path):
    b = bench.Bench(str(tmp_path), pool.Pool(str(tmp_path)), "plugin", 1, 1,
                    1)
    extra = peers.variant("t2:threads=2", {})
    part = guest.Guest(b, [ROW.name], [extra])
    assert "%s|guest-t2" % ROW.name in part.keys()
    assert part.peers[-1].peer is not extra
    data = results(rbdcrypt_luks2=[5] * 3)
    data["peers"]["t2"] = "t2"
    data["guest"] = {"%s|guest-t2" % ROW.name: [sample(7 * MIB)] * 3}
    assert "| workload | NBD to t2 |" in report.text(data)
    data["remote-guest"] = dict(data.pop("guest"), **{"link|operator": [
        {"round_trip": 750, "rate": 366e6}] * 3})
    text = report.text(data).partition("## In a guest, the cluster")[2]
    assert "Measured: round trip 750 (750–750)" in text
    assert "| workload | NBD to t2 |" in text


def test_interrupted_run_goes_on(tmp_path):
    path = str(tmp_path / "ledger")
    first = Ledger(path, {"commit": "a"}, resume=False)
    first.add("cells", "row|peer", 0, {"rate": 1})
    first.add("cells", "row|peer", 1, {"rate": 2})
    first.file.write('{"section": "cells", "key": "row|pe')
    first.file.close()
    second = Ledger(path, {"commit": "a"}, resume=True)
    assert second.section("cells") == {"row|peer": [{"rate": 1},
                                                    {"rate": 2}]}
    assert not second.has("cells", "row|peer", 2)
    second.add("cells", "row|peer", 2, {"rate": 3})
    third = Ledger(path, {"commit": "a"}, resume=True)
    assert len(third.section("cells")["row|peer"]) == 3


def test_resuming_another_run_is_refused(tmp_path):
    path = str(tmp_path / "ledger")
    Ledger(path, {"commit": "a", "rounds": 5}, resume=False)
    before = open(path).read()
    with pytest.raises(pool.Refused, match='commit: "a", now "b"'):
        Ledger(path, {"commit": "b", "rounds": 5}, resume=True)
    with pytest.raises(pool.Refused, match="nothing to resume"):
        Ledger(str(tmp_path / "none"), {}, resume=True)
    assert open(path).read() == before


def test_a_disk_that_is_too_small_is_refused(tmp_path):
    pool.check_room(str(tmp_path), 1)
    with pytest.raises(pool.Refused, match="GiB free, this needs 1048576"):
        pool.check_room(str(tmp_path), 1 << 50)


def test_a_cluster_that_is_not_its_own_is_refused(tmp_path):
    r = run("--pool", "rbd", RBDCRYPT_TEST_DIR=str(tmp_path))
    assert r.returncode == 1
    assert "--i-own-this-pool" in r.stderr and "Traceback" not in r.stderr
    assert len(r.stderr.splitlines()) == 1
    r = run("--i-own-this-pool", RBDCRYPT_TEST_DIR=str(tmp_path))
    assert r.returncode == 1 and "--pool NAME" in r.stderr
    r = run("--conf", "/etc/ceph/ceph.conf",
            RBDCRYPT_TEST_DIR=str(tmp_path))
    assert r.returncode == 1 and "--pool NAME" in r.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("argv, words", [
    (("--peers", "nobody"), ["nobody", "qemu-luks2"]),
    (("--only", "3M read"), ["3M read", "1M read, depth 8"]),
    (("--sections", "all"), ["all", "cells"]),
    (("--into", BENCH + "/results.json"), ["--sections"]),
    (("--variant", "x:base=luks9"), ["base="]),
    (("--variant", "x:plugin=none"), ["--plugin none=PATH"]),
    (("--variant", "null:threads=4"), ["null"]),
    (("--plugin", "/tmp"), ["NAME=PATH"]),
    (("--rounds", "0", "--seconds", "0.1"), ["at least"]),
])
def test_what_makes_no_sense_is_refused_in_words(argv, words, tmp_path):
    r = run(*argv, RBDCRYPT_TEST_DIR=str(tmp_path))
    assert r.returncode == 1, r.stdout
    assert "Traceback" not in r.stderr
    for w in words:
        assert w in r.stderr
    assert os.listdir(tmp_path) == []


def test_variant_names_build_allocator_threads_and_parameters():
    p = peers.variant("x:plugin=old,preload=tcmalloc,threads=4,base=none,"
                      "ceph.rbd_cache=false,cache=none", {"old": "/old.so"})
    assert (p.ident, p.plugin, p.preload, p.threads, p.kind) == (
        "x", "/old.so", "tcmalloc", "4", "plain")
    assert p.parameters == ["ceph.rbd_cache=false", "cache=none"]


def test_guest_s_answers_are_told_apart():
    ours, theirs = socket.socketpair()
    machine = guest.Machine.__new__(guest.Machine)
    machine.buffer, machine.port, machine.log = b"", ours, "/nonexistent"
    theirs.sendall(b"booting\n=ready\n{\n a = 1\n}\n=0\nbad\n=1")
    assert machine.until("ready", 5) == "booting\n"
    assert machine.until(None, 5) == (0, "{\n a = 1\n}\n")
    with pytest.raises(guest.GuestError, match="no answer"):
        machine.until(None, 0.1)
    theirs.sendall(b"27\n")
    assert machine.until(None, 5) == (127, "bad\n")
    theirs.close()
    with subprocess.Popen(["false"]) as machine.process, \
            pytest.raises(guest.GuestError, match="ended with status 1"):
        machine.until(None, 5)
    ours.close()


def committed():
    with open(os.path.join(BENCH, "results.json")) as f:
        return json.load(f)


def document(name):
    with open(os.path.join(BENCH, "..", "..", name)) as f:
        return f.read()


def test_results_are_those_of_the_committed_figures():
    text = document("tests/bench/RESULTS.md")
    # But for the charts, which take a library to draw.
    made = [line for line in report.text(committed()).splitlines()
            if line and not line.startswith("![")]
    missing = [line for line in made if line not in text]
    assert not missing, missing[:3]


def test_readme_shows_what_was_measured():
    assert report.readme(committed()).strip() in document("README.md")


def test_every_missed_target_is_explained():
    """FINDINGS.md has a table whose first column holds patterns."""
    part = document("tests/bench/FINDINGS.md")
    part = part.partition("## What is missed")[2].partition("\n## ")[0]
    patterns = [p for line in part.splitlines() if line.startswith("| `")
                for p in re.findall(r"`([^`]+)`", line.split("|")[1])]
    data = committed()
    missed = {t.figure for subject in (peers.PLUGIN, peers.OPENSSL,
                                       "rbdcrypt-tcmalloc")
              if subject in data["peers"]
              for t in targets.evaluate(data, subject) if not t.met}
    unexplained = [f for f in missed
                   if not any(fnmatch.fnmatchcase(f, p) for p in patterns)]
    assert not unexplained, unexplained
    idle = [p for p in patterns
            if not any(fnmatch.fnmatchcase(f, p) for f in missed)]
    assert not idle, "explained, and not missed: %s" % idle


def test_results_of_the_first_version_are_not_compared(tmp_path):
    old = tmp_path / "old.json"
    old.write_text(json.dumps({"rounds": 5}))
    r = run("--here", "--from", str(old), RBDCRYPT_TEST_DIR=str(tmp_path))
    assert r.returncode == 1
    assert "another version" in r.stderr and "Traceback" not in r.stderr


def test_fleets_targets_are_of_exports_beyond_the_first():
    data = results(rbdcrypt_luks2=[500] * 3)
    small, large = fleet.RATES
    data["fleet"] = {
        "start": [{"seconds": 0.4}] * 3,
        "idle": [{"mib": 6, "threads": 0.1, "open": 0.01, "rss": 700,
                  "all_threads": 40}] * 3,
        "%s|1" % small.name: [sample(100 * MIB)] * 3,
        "%s|%d" % (small.name, fleet.BUSY): [sample(96 * MIB)] * 3,
        "%s|1" % large.name: [sample(100 * MIB)] * 3,
        "%s|%d" % (large.name, fleet.BUSY): [sample(94 * MIB)] * 3,
        "alone": [sample(MIB, p99=1000)] * 3,
        "noisy": [sample(MIB, p99=2900)] * 3,
        "apart": [sample(MIB, p99=2800)] * 3}
    met = [t.met for t in targets.fleet(figures.Figures(data))]
    assert met == [True, False, True, True, False, True]
    text = report.text(data)
    assert "## Many exports of one server" in text
    assert "p99, ms | 2.90" in text and "threads each | 0.10" in text
