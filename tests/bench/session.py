# SPDX-License-Identifier: BSD-3-Clause
"""One run from its arguments to its results."""

import contextlib
import fcntl
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import threading
import time

import bench
import build
import compare
import fio
import lab
import machine
import peers
import report
import workloads
from attach import Attach
from bench import say
from copies import Copies
from crowd import Crowd
from fleet import Fleet
from guest import Guest, GuestError
from ledger import Ledger
from pool import Pool, Refused, check_pool
from remote import PEERS as REMOTELY
from remote import Remote, RemoteGuest
from trim import Trim
from workloads import MIB

PARTS = {"remote": Remote, "cells": None, "attach": Attach, "copies": Copies,
         "crowd": Crowd, "fleet": Fleet, "guest": Guest, "trim": Trim,
         "remote-guest": RemoteGuest}
# What a whole run has no time for.
BY_NAME = ("fleet", "remote-guest")
DEFAULT_CONF = "/etc/ceph/ceph.conf"

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """By a signal."""


def plugins(args):
    """{name: path} of --plugin."""
    found = {}
    for text in args.plugin:
        name, equals, path = text.partition("=")
        if not name or not equals or "/" in name:
            raise ValueError("--plugin %s: wants NAME=PATH" % text)
        found[name] = path
    return found


class Choice:
    """What ARGS ask for."""

    def __init__(self, args):
        quick = args.quick
        self.rounds = args.rounds or (3 if quick else 5)
        self.seconds = args.seconds or 2
        self.image = (args.image or (512 if quick else 1024)) * MIB
        if self.rounds < 1 or self.seconds < 1 or self.image < 64 * MIB:
            raise ValueError("at least one round, 1 s, 64 MiB")
        self.workloads = workloads.QUICK if quick else workloads.ALL
        if args.only:
            self.workloads = workloads.named(args.only.split(";"))
        # A cluster that was given is where it is.
        sections = args.sections or (
            "cells" if quick or args.only else ",".join(
                s for s in PARTS if s not in BY_NAME
                and not (s == "remote" and args.pool)))
        self.sections = sections.split(",")
        for s in self.sections:
            if s not in PARTS:
                raise ValueError("no part is called %r; there are: %s" % (
                    s, ", ".join(PARTS)))
        self.complete = args.complete or quick or bool(
            args.only or args.peers)
        self.all_rows = args.complete or bool(args.only)
        self.full = not (quick or args.only or args.peers or args.sections)


def check(args):
    """All that can be refused at once."""
    check_pool(args.pool, args.mine, args.conf)
    choose_peers(args, plugins(args))
    if args.into and not args.sections:
        raise ValueError("--into wants --sections")
    if args.into and (args.only or args.peers or args.variant):
        raise ValueError("--into takes whole parts: not with --only, --peers "
                         "or --variant")
    return Choice(args)


def choose_peers(args, builds):
    among = peers.standard()
    for name in (n for n in builds if n):
        among.append(peers.Rbdcrypt(
            name, "rbdcrypt LUKS2 (%s)" % name, "luks2", builds[name]))
    among += [peers.variant(v, builds) for v in args.variant]
    idents = [p.ident for p in among]
    for i in idents:
        if idents.count(i) > 1:
            raise ValueError("two peers are called %r" % i)
    if args.peers:
        return peers.select(args.peers.split(","), among + peers.extra())
    if args.quick:
        standard = [p.ident for p in peers.standard()]
        return [p for p in among if p.ident in peers.QUICKLY
                or p.ident not in standard]
    return among


def present(chosen):
    """(those that this machine has, {ident: what is missing})"""
    there, missing = [], {}
    for p in chosen:
        try:
            p.needs()
            there.append(p)
        except peers.Missing as e:
            missing[p.ident] = str(e)
            say("%s is left out: %s" % (p.title, e))
    return there, missing


def digest(path):
    with open(path, "rb") as f:
        return hashlib.sha256(f.read()).hexdigest()[:16]


def print_list():
    print("rows (--only):")
    for w in workloads.ALL:
        print("  " + w.name)
    print("columns (--peers):")
    for p in peers.standard() + peers.extra():
        print("  %-18s %s" % (p.ident, p.title))
    print("parts (--sections):")
    for s in PARTS:
        print("  " + s + (" (by name only)" if s in BY_NAME else ""))


def stop_when_told(inside):
    """A signal, and inside a chroot the end of standard input:
    everything is put away first."""
    def stop(*_):
        for s in STOPPING:
            signal.signal(s, signal.SIG_IGN)
        raise Stopped

    def wait():
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    for s in STOPPING:
        if s != signal.SIGHUP or signal.getsignal(s) != signal.SIG_IGN:
            signal.signal(s, stop)  # nohup stays nohup
    if inside:
        threading.Thread(target=wait, daemon=True).start()


def lock(state):
    os.makedirs(state, exist_ok=True)
    held = open(os.path.join(state, "lock"), "w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refused("another run uses %s" % state) from None
    return held


def main(args, root, state, commit):
    if args.list:
        print_list()
        return 0
    if args.from_:
        publish(args, load(args.from_), state)
        return 0
    choice = check(args)
    if args.compare:
        load(args.compare)
    whole = load(args.into) if args.into else None
    stop_when_told(args.inside)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    held = lock(state)
    try:
        say("packages")
        # What cannot be installed is missing, and named later.
        subprocess.run([os.path.join(root, "tests", "env", "packages"),
                        "--bench"], stdin=subprocess.DEVNULL)
        builds = {"": os.environ.get("RBDCRYPT_PLUGIN")
                  if not args.inside else None}
        say("building the plugin")
        builds[""] = os.path.realpath(
            builds[""] or build.build(root, os.path.join(state, "tree")))
        for name, path in plugins(args).items():
            builds[name] = os.path.realpath(
                build.plugin(path, os.path.join(state, "tree-" + name)))
        results, ledger, failed = measure(args, choice, builds, state,
                                          commit, whole)
        publish(args, results, state)
        if failed:
            raise Refused("%s failed; go on with the same command and "
                          "--resume" % " and ".join(failed))
        ledger.finish()
        return 0
    except Stopped:
        say("stopped; everything that was started has ended.  Go on with "
            "the same command and --resume")
        return 130
    except (RuntimeError, AssertionError, OSError, fio.FioError,
            GuestError, subprocess.SubprocessError) as e:
        say("failed; everything that was started has ended")
        raise Refused("%s\nGo on with the same command and --resume"
                      % e) from e
    finally:
        held.close()


def publish(args, results, state):
    out = args.out or os.path.join(state, "out")
    trouble = report.write(results, out)
    print(report.text(results))
    if args.compare:
        print(compare.text(load(args.compare), results))
    if trouble:
        say(trouble)
    say("RESULTS.md and results.json are in " + out)


def load(path):
    with open(path) as f:
        results = json.load(f)
    if "identity" not in results:
        raise Refused("%s is of another version of this benchmark" % path)
    return results


def make_part(name, b, chosen, choice):
    standard = [p.ident for p in peers.standard()]
    ours = [p for p in chosen if p.ident not in standard
            and isinstance(p, peers.Rbdcrypt)]
    if name == "cells":
        return bench.Cells(b, chosen, choice.workloads, choice.complete)
    if name == "remote":
        return Remote(b, [p for p in chosen if p.ident in REMOTELY] + ours,
                      choice.workloads, choice.all_rows)
    if name in ("guest", "remote-guest"):
        return PARTS[name](b, [w.name for w in choice.workloads], ours)
    return PARTS[name](b)


def parts_of(b, chosen, choice, missing):
    """The sections that this machine can measure; MISSING gets the
    others."""
    parts = []
    for name in choice.sections:
        part = make_part(name, b, chosen, choice)
        try:
            part.needs()
            parts.append(part)
        except peers.Missing as e:
            missing[name] = str(e)
            say("%s is left out: %s" % (name, e))
    return parts


def into(whole, results, sections):
    """WHOLE with the SECTIONS of RESULTS in place of its own."""
    for section in sections:
        if section in results["missing"]:
            continue
        whole[section] = results[section]
        whole["missing"].pop(section, None)
        whole.setdefault("later", {})[section] = {
            "commit": results["identity"]["commit"], "date": results["date"]}
    whole["memory"].update(results["memory"])
    return whole


def measure(args, choice, builds, state, commit, whole=None):
    """(results, their ledger, names of the parts that failed).  WHOLE: the
    results that get what is measured now."""
    directory = os.path.join(state, "lab")
    sweep(directory)
    os.makedirs(directory, mode=0o755)
    pool = Pool(directory, args.pool, args.pool and os.path.realpath(
        args.conf or DEFAULT_CONF))
    b = bench.Bench(directory, pool, builds[""], choice.image,
                    choice.rounds, choice.seconds, preload(state))
    chosen, missing = present(choose_peers(args, builds))
    about = machine.about(builds[""])
    identity = dict(
        about, commit=commit, rounds=choice.rounds, seconds=choice.seconds,
        image_mib=choice.image // MIB, latency="total", flushes="first, last",
        workloads=[w.name for w in choice.workloads],
        peers=[p.ident for p in chosen], sections=choice.sections,
        builds={name: digest(path) for name, path in builds.items()},
        variants=args.variant, pool=args.pool)
    if whole:
        unlike = compare.unlike(whole, {"identity": identity},
                                compare.EXACTLY)
        if unlike:
            raise Refused("%s is of another kind: %s" % (args.into, unlike))
    ledger = Ledger(os.path.join(state, "ledger"), identity, args.resume)
    parts = parts_of(b, chosen, choice, missing)
    for part in parts:
        part.plan(ledger)
    say("%d peers, %d workloads, %d rounds of %g s: about %.0f min" % (
        len(chosen), len(choice.workloads), choice.rounds, choice.seconds,
        b.clock.left() / 60))
    failed = execute(b, parts, ledger)
    missing.update(failed)
    results = {"identity": identity, "machine": about, "missing": missing,
               "peers": {p.ident: p.title for p in chosen},
               "date": time.strftime("%Y-%m-%d"), "full": choice.full,
               "minutes": ledger.elapsed() / 60, "settings": b.settings_}
    for section in [*PARTS, "memory"]:
        results[section] = ledger.section(section)
    if whole:
        results = into(whole, results, choice.sections)
    return results, ledger, list(failed)


def start_pool(b, settings):
    say("the pool " + b.pool.name if b.pool.foreign else "starting a Ceph")
    b.pool.up()
    if settings:
        b.settings()


def execute(b, parts, ledger):
    """{part: why it failed}; the others are measured all the same.
    Whatever happens, nothing stays."""
    failed = {}
    with contextlib.ExitStack() as end:
        end.callback(sweep, b.directory)
        end.callback(b.pool.down)
        for part in parts:
            end.callback(part.stop)
        end.callback(say, "putting everything away")
        up = False
        for part in parts:
            if not part.own_pool and not up:
                up = True
                start_pool(b, "fio-ours" in ledger.identity["peers"])
            try:
                part.run(ledger)
            except (RuntimeError, AssertionError, fio.FioError, GuestError,
                    subprocess.SubprocessError) as e:
                failed[part.section] = str(e).splitlines()[0]
                say("%s failed: %s" % (part.section, e))
    return failed


def preload(state):
    return build.compiled(
        os.path.join(os.path.dirname(os.path.abspath(__file__)), "preload.c"),
        os.path.join(state, "preload.so"), "-shared", "-fPIC")


def sweep(directory):
    """What a killed run left."""
    cluster = os.path.join(directory, "cluster")
    if os.path.isdir(cluster):
        lab.Cluster(cluster).down()
    shutil.rmtree(directory, ignore_errors=True)
