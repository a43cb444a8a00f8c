# SPDX-License-Identifier: BSD-3-Clause
"""What all tests agree on: places, limits, the passphrase, data."""

import hashlib
import os
import random

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENV = os.path.join(HERE, "..", "env")
TOP = os.path.realpath(os.path.join(HERE, "..", ".."))
KIB = 1 << 10
MIB = 1 << 20

# The plugin's own limits (see the manual), and what a loaded machine may
# add to them: the 10 s of a start begin once Ceph's libraries are loaded.
START_LIMIT = 16
STOP_LIMIT = 34

# What a client waits for a costly unlock: up to 20 s for its turn on this
# host, and then for what a busy one gives it.
UNLOCK_LIMIT = 120

# Sooner than what waits for anything: the limits of a question and of a
# start are 10 s.  How much sooner is the machine's business.
AT_ONCE = 8

PASSPHRASE = b"correct horse battery staple"
# What tests choose at random: the same number, the same choice.
SEED = os.environ.get("RBDCRYPT_SEED") or str(
    random.SystemRandom().randrange(1 << 30))
# Processes carry this in their environment: how leftovers are found.
MARK = "RBDCRYPT_LAB"


def pattern(length, seed=0):
    """LENGTH bytes that look random, the same for the same SEED."""
    return hashlib.shake_128(b"%d" % seed).digest(length)
