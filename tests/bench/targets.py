# SPDX-License-Identifier: BSD-3-Clause
"""What was promised, and whether this run keeps it."""

import statistics

import peers as peers_
from figures import Figures, Spread
from workloads import Workload

OF_LIMIT = 0.95
READ8, WRITE8 = Workload("1M", "read", 8), Workload("1M", "write", 8)
READ1, READ16 = Workload("1M", "read", 1), Workload("1M", "read", 16)
RANDREAD = Workload("4K", "randread", 16)
RANDWRITE = Workload("4K", "randwrite", 16)
SMALL = Workload("4K", "write", 16)

# More than "not slower" than qemu-nbd with librbd's LUKS2.
AHEAD = {READ8.name: 1.5, RANDREAD.name: 3.5, SMALL.name: 1.25}
SHARE = {READ8.name: 1.0, WRITE8.name: 1.0, RANDREAD.name: 0.95,
         RANDWRITE.name: 0.95, SMALL.name: 0.75}


class Target:
    """FIGURE is GOT, a Spread, and should be at least (or, MOST, at most)
    NEEDED."""

    def __init__(self, figure, got, needed, command, most=False, note="",
                 digits=2):
        self.figure, self.got, self.needed = figure, got, needed
        self.command, self.most, self.note = command, most, note
        self.digits = digits

    @property
    def met(self):
        if self.most:
            return self.got.median <= self.needed
        return self.got.median >= self.needed

    @property
    def distance(self):
        """How far from NEEDED, as a share of it; below 0: missed."""
        far = self.got.median / self.needed - 1
        return -far if self.most else far

    @property
    def verdict(self):
        """A median decides; whether another run would say the same is
        another question."""
        word = "met" if self.met else "**missed**"
        if self.got.low <= self.needed <= self.got.high \
                and self.got.low < self.got.high:
            word += ", within the spread"
        return word

    def words(self):
        sign = "≤" if self.most else "≥"
        return [self.figure, self.got.text(self.digits),
                "%s %.*f%s" % (sign, self.digits, self.needed,
                               self.note and " (%s)" % self.note),
                self.verdict,
                "%+.0f %%" % (self.distance * 100), "`%s`" % self.command]


def only(workload):
    """With the row that has its limit."""
    names = [workload.name]
    if workload.connections > 1:
        names.append(workload.single().name)
    return 'tests/bench/run --only "%s"' % ";".join(names)


def at_least(figures, w, subject, peer, factor):
    """SUBJECT is FACTOR times as fast as PEER; or at OF_LIMIT of the
    limit, where that is less."""
    got = figures.ratio(w, subject, peer)
    if not got:
        return []
    needed, note = factor, ""
    limit = figures.limit(w)
    if limit:
        bound = OF_LIMIT * (limit / figures.rate(w, peer)).median
        if bound < needed:
            needed = bound
            note = "%.0f %% of the limit; %.2f was aimed at" % (
                100 * OF_LIMIT, factor)
    return [Target("%s, against %s" % (w.name, figures.peers[peer]), got,
                   needed, only(w), note=note)]


def rates(figures, subject):
    found = []
    for w in figures.rows:
        found += at_least(figures, w, subject, "qemu-luks2",
                          AHEAD.get(w.name, 1.0))
    for w in (READ8, READ16):
        found += at_least(figures, w, subject, "qemu-luks1", 2.2)
    for w in figures.rows:
        got = figures.ratio(w, subject, "qemu-plain")
        if got:
            found.append(Target("%s, against %s" % (
                w.name, figures.peers["qemu-plain"]), got, 0.98, only(w)))
    for w in (READ8, WRITE8, RANDREAD, RANDWRITE, SMALL):
        limit, rate = figures.limit(w), figures.rate(w, subject)
        if limit and rate:
            found.append(Target("%s, of the limit" % w.name, rate / limit,
                                SHARE[w.name], only(w)))
    return found


def costs(figures, subject):
    found = []
    direct, _ = figures.direct(RANDREAD)
    server = figures.cost(RANDREAD, subject)
    if direct and server:
        found.append(Target(
            "server CPU of %s, against the process of %s" % (
                RANDREAD.name, figures.peers[direct]),
            server / figures.cost(RANDREAD, direct, ("client_cpu",)), 1.15,
            only(RANDREAD), most=True))
    direct, _ = figures.direct(READ8)
    server, hop = figures.cost(READ8, subject), figures.cost(
        READ8, peers_.HOP)
    if direct and server and hop:
        both = figures.cost(READ8, direct, ("client_cpu",))
        sums = type(both)(a + b for a, b in zip(both.values, hop.values))
        found.append(Target(
            "server CPU of %s, against the process of %s and the server "
            "of the hop" % (READ8.name, figures.peers[direct]),
            server / sums, 1.05, only(READ8), most=True))
    return found


def attaches(figures):
    command = "tests/bench/run --sections attach"
    found = []
    cheap = figures.of("attach", "cheap|rbdcrypt", "seconds", 1000)
    if cheap:
        found.append(Target("attach to first byte, cheap header, ms", cheap,
                            150, command, most=True, digits=0))
    for header in ("pbkdf2", "argon2id"):
        ours = figures.of("attach", header + "|rbdcrypt", "seconds")
        theirs = figures.of("attach", header + "|qemu-nbd", "seconds")
        if ours and theirs:
            found.append(Target(
                "attach to first byte, %s, against qemu-nbd" % header,
                ours / theirs, 1.1, command, most=True))
    ours = figures.of("attach", "argon2id|rbdcrypt", "peak")
    theirs = figures.of("attach", "argon2id|qemu-nbd", "peak")
    if ours and theirs:
        found.append(Target("peak memory of an Argon2id unlock, against "
                            "qemu-nbd", ours / theirs, 1.0, command,
                            most=True))
    return found


def openssl(figures, subject):
    """The engine of our own against librbd's, and what it is there for."""
    found = []
    pairs = [(w, figures.ratio(w, subject, peers_.PLUGIN))
             for w in figures.rows]
    pairs = [(w, got) for w, got in pairs if got]
    found += [Target("%s, against librbd's engine" % w.name, got, 0.97,
                     only(w)) for w, got in pairs]
    if len(pairs) > 1:
        found.append(Target(
            "all rows, against librbd's engine, geometric mean",
            Spread(map(statistics.geometric_mean,
                       zip(*(got.values for _, got in pairs)))), 1.0,
            "tests/bench/run --sections cells"))
    for w in figures.rows:
        got = figures.ratio(w, subject, "rbdcrypt-none")
        if got:
            found.append(Target("%s, against key=none" % w.name, got, 0.85,
                                only(w)))
    for w, needed in (READ8, 2.0), (READ1, 1.5):
        got = figures.ratio(w, subject, "qemu-luks1")
        if got:
            found.append(Target("%s, against QEMU LUKS" % w.name, got,
                                needed, only(w)))
    return found + in_a_guest(figures, READ8, "guest-cinder", "guest-luks",
                              1.8) + space(figures) \
        + on_a_link(figures, subject) + fleet(figures)


def space(figures):
    """What TRIM and extents are there for."""
    found = []
    ours = figures.of("trim", "trim-openssl", "trimmed")
    plain = figures.of("trim", "trim-plain", "trimmed")
    if ours and plain:
        found.append(Target(
            "rbd du after fstrim in a guest, against a plain image",
            ours / plain, 1.05, "tests/bench/run --sections trim",
            most=True))
    sparse = figures.of("copies", "out: nbdcopy|sparse", "rate")
    full = figures.of("copies", "out: nbdcopy|openssl", "rate")
    if sparse and full:
        found.append(Target(
            "nbdcopy of a sparse image of 100 GiB out, against a full one",
            sparse / full, 0.8, "tests/bench/run --sections copies"))
    return found


def memory(figures, subject):
    """After all rows, which not every column has."""
    if subject in peers_.BRIEFLY:
        return []
    steady = figures.of("memory", subject, "steady")
    return [Target("resident after all rates, MiB", steady, 60,
                   "tests/bench/run --sections cells", most=True,
                   digits=0)] if steady else []


def in_a_guest(figures, w, ours, other, needed):
    ours = figures.of("guest", "%s|%s" % (w.name, ours), "rate")
    theirs = figures.of("guest", "%s|%s" % (w.name, other), "rate")
    if not ours or not theirs:
        return []
    return [Target("in a guest, %s, against %s" % (
        w.name, "QEMU LUKS" if other == "guest-luks"
        else "librbd inside QEMU"), ours / theirs, needed,
        'tests/bench/run --sections guest --only "%s"' % w.name)]


def guests(figures):
    from guest import WORKLOADS
    found = []
    for w in WORKLOADS:
        found += in_a_guest(figures, w, "guest-nbd", "guest-librbd",
                            0.95 if w.size == "1M" else 0.93)
    for w in WORKLOADS:
        needed = 0.95 if w.size == "4K" else 1.25 if w.writes \
            else 1.9 if w.depth == 8 else None
        if needed:
            found += in_a_guest(figures, w, "guest-nbd", "guest-luks",
                                needed)
    return found


def on_a_link(figures, subject):
    """What the hop and encryption may cost where the network limits, and
    what is gained on QEMU's LUKS there."""
    import remote
    found, gains = [], []

    def ratio(w, other):
        some = [figures.of("remote", "%s|%s|%s" % (
            remote.PLACES[0].ident, w.name, p), "rate")
            for p in (subject, other)]
        return some[0] / some[1] if all(some) else None

    small = 0.95 if subject == peers_.OPENSSL else 0.92
    needed = {("1M", "read", 1): 0.89, ("16K", "read", 8): small,
              ("4K", "read", 8): small}
    needed.update({("1M", rw, depth): 0.98 for rw in ("read", "write")
                   for depth in (8, 16)})
    command = "tests/bench/run --sections remote"
    for w in remote.WORKLOADS:
        least = needed.get((w.size, w.rw, w.depth))
        plain, luks = ratio(w, remote.PLAIN), ratio(w, remote.QEMU_LUKS)
        one = '%s --only "%s"' % (command, w.name)
        if least and plain:
            found.append(Target(
                "on the operator's link, %s, against fio rbd plain" % w.name,
                plain, least, one))
        if luks:
            gains.append(luks)
            found.append(Target(
                "on the operator's link, %s, against QEMU LUKS" % w.name,
                luks, 0.97, one))
    if len(gains) > 1:
        found.append(Target(
            "on the operator's link, all rows, against QEMU LUKS, geometric "
            "mean", Spread(map(statistics.geometric_mean,
                               zip(*(g.values for g in gains)))), 1.15,
            command))
    return found


def copies(figures):
    ours = figures.of("copies", "out: nbdcopy|rbdcrypt", "rate")
    theirs = figures.of("copies", "out: qemu-img convert|direct", "rate")
    return [Target("nbdcopy of a whole image out, against qemu-img convert "
                   "from librbd LUKS2", ours / theirs, 1.5,
                   "tests/bench/run --sections copies")] \
        if ours and theirs else []


def fleet(figures):
    import fleet as fleet_
    command = "tests/bench/run --sections fleet"
    found = []

    def most(what, got, needed):
        if got:
            found.append(Target(what, got, needed, command, most=True))
    most("start with %d configured exports, s" % fleet_.CONFIGURED,
         figures.of("fleet", fleet_.START, "seconds"), 1)
    most("an export that is open and idle, MiB",
         figures.of("fleet", fleet_.IDLE, "mib"), 5)
    most("an export that is open and idle, threads",
         figures.of("fleet", fleet_.IDLE, "threads"), 0.2)
    for w in fleet_.RATES:
        one, many = [figures.of("fleet", "%s|%d" % (w.name, n), "rate")
                     for n in (1, fleet_.BUSY)]
        if one and many:
            found.append(Target("%s, %d exports together against one" % (
                w.name, fleet_.BUSY), many / one, OF_LIMIT, command))
    alone, noisy = [figures.of("fleet", name, "p99")
                    for name in ("alone", "noisy")]
    if alone and noisy:
        most("p99 of %s beside a noisy export, against alone"
             % fleet_.QUIET.name, noisy / alone, 3)
    return found


def evaluate(results, subject=peers_.PLUGIN):
    """All that RESULTS have the figures for."""
    figures = Figures(results)
    if subject == peers_.OPENSSL:
        return openssl(figures, subject)
    found = rates(figures, subject) + costs(figures, subject) \
        + memory(figures, subject)
    if subject == peers_.PLUGIN:
        found += attaches(figures) + guests(figures) + copies(figures) \
            + on_a_link(figures, subject)
    return found
