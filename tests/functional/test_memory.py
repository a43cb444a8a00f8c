# SPDX-License-Identifier: BSD-3-Clause
"""What a server holds after bursts, and after a long random load
(tests/long/memory: for an hour)."""

import os
import random
import statistics
import threading
import time

import nbd
import pytest

import lab
from lab import KIB, MIB
from lab.processes import resident

SECONDS = int(os.environ.get("RBDCRYPT_MEMORY_SECONDS", "0"))
SEED = int(lab.SEED)
ENGINES = ("engine=librbd", "engine=openssl")
BEHIND = 8 * MIB
# After bursts: 64 MiB is the aim; the rest is for what is busy beside it.
RESIDENT = 96 * MIB + BEHIND
GROWTH = 8 * MIB
# For a run that is too short to say what grows: with two busy clients.
BUSY = 256 * MIB
DATA = lab.pattern(5 * MIB)


@pytest.mark.parametrize("engine", ENGINES)
def test_bursts_leave_little(servers, images, key, engine):
    """For each size: what one leaves free, the next can use."""
    server = servers.start(images.luks(), key, engine, "behind=%d" % BEHIND)
    clients = [server.connect() for _ in range(4)]
    for c in clients:
        c.flush()
    for size in (4 * KIB, 64 * KIB, MIB, 4 * MIB):
        data, n = lab.pattern(size), min(64, 32 * MIB // size)
        for i in range(n):
            clients[i % 4].handle.aio_pwrite(data, i * size % (32 * MIB))
        lab.await_(lambda: all(c.handle.poll(10) >= 0
                               and not c.handle.aio_in_flight()
                               for c in clients), 60, "all is answered")
        clients[0].flush()
        for i in range(n):
            clients[i % 4].read(size, i * size % (32 * MIB))
    # nbdkit keeps a buffer for each thread of a connection.
    for c in clients:
        c.close()
    # Given back once nothing came for five seconds.
    lab.await_(lambda: resident(server.pid) < RESIDENT, 40,
               "%d MiB or less are resident" % (RESIDENT // MIB))
    print("%s: %.1f MiB" % (engine, resident(server.pid) / MIB))


def work(server, seed, until, trouble):
    """One client after the other does anything."""
    chance = random.Random(seed)
    try:
        while time.monotonic() < until:
            with lab.Client.connect(server.socket) as c:
                for _ in range(chance.randrange(1, 200)):
                    size = chance.choice((512, 4 * KIB, 64 * KIB, MIB))
                    count = size * chance.randrange(1, 5)
                    at = chance.randrange((c.size - count) // 512) * 512
                    what = chance.randrange(10)
                    if what < 4:
                        c.write(DATA[at % MIB:at % MIB + count], at)
                    elif what < 6:
                        c.read(count, at)
                    elif what == 6 and c.handle.can_trim():
                        c.trim(count, at)
                    elif what == 7:
                        c.zero(count, at)
                    else:
                        c.flush()
                if chance.randrange(4) == 0:
                    c.vanish()
    except (AssertionError, nbd.Error, lab.Refused) as e:
        trouble.append(e)


@pytest.mark.timeout(2 * SECONDS + 180)
def test_memory_does_not_grow_under_random_load(servers, images, key):
    """Each engine's server; sampled, the second third against the
    last."""
    seconds = SECONDS or 6
    running = [servers.start(images.luks(), key, engine,
                             "behind=%d" % BEHIND) for engine in ENGINES]
    samples = {s: [] for s in running}
    until, trouble = time.monotonic() + seconds, []
    threads = [threading.Thread(target=work, args=(s, SEED + i, until,
                                                   trouble))
               for s in running for i in range(2)]
    for t in threads:
        t.start()
    while time.monotonic() < until:
        for s in running:
            samples[s].append(resident(s.pid))
        time.sleep(seconds / 240)
    for t in threads:
        t.join(60)
    assert trouble == []
    for engine, s in zip(ENGINES, running, strict=True):
        third = len(samples[s]) // 3
        before = statistics.median(samples[s][third:2 * third])
        after = statistics.median(samples[s][2 * third:])
        print("%s: %d samples; MiB in the middle: %.1f, then %.1f"
              % (engine, len(samples[s]), before / MIB, after / MIB))
        assert after < (before + GROWTH if SECONDS else BUSY)
        assert s.stop() == 0
