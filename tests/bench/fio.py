# SPDX-License-Identifier: BSD-3-Clause
"""One run of fio, and what it and others used meanwhile."""

import json
import os
import subprocess
import threading

TICKS = os.sysconf("SC_CLK_TCK")
PERCENTILES = {"p50": "50.000000", "p99": "99.000000",
               "p999": "99.900000"}


class FioError(Exception):
    pass


def cpu_seconds(pid):
    """User's and system's of the whole process."""
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def status(pid):
    """/proc/PID/status as a dictionary of first words."""
    with open("/proc/%d/status" % pid) as f:
        return dict(line.split(":", 1) for line in f)


def status_number(pid, field):
    return int(status(pid)[field].split()[0])


class Watch:
    """The greatest number of threads and resident memory of a process
    while something runs: an NBD server's threads come and go with its
    clients."""

    PERIOD = 0.4

    def __init__(self, pid):
        self.pid, self.rss, self.threads = pid, 0, 0
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.end.wait(self.PERIOD):
            try:
                now = status(self.pid)
            except OSError:
                return
            self.rss = max(self.rss, int(now["VmRSS"].split()[0]))
            self.threads = max(self.threads, int(now["Threads"]))

    def __enter__(self):
        if self.pid:
            self.thread.start()
        return self

    def __exit__(self, *_):
        self.end.set()
        if self.pid:
            self.thread.join()


def command(jobs):
    """JOBS: from the first --name on."""
    return ["fio", "--output-format=json", "--thread", "--norandommap",
            "--clocksource=clock_gettime", "--group_reporting",
            "--lat_percentiles=1", "--clat_percentiles=0",
            "--percentile_list=50:99:99.9", *jobs]


def sides(text):
    """Sums over fio's jobs, of reads and writes: bytes per second, bytes,
    operations; latencies of the reads if there are any, in microseconds,
    from the call that submits (small writes may end within it)."""
    jobs = json.loads(text[text.index("{"):])["jobs"]
    both = [job[side] for job in jobs for side in ("read", "write")
            if job[side]["total_ios"]]
    if not both:
        raise FioError("fio moved nothing")
    shown = both[0]["lat_ns"]["percentile"]
    result = {"rate": sum(s["bw_bytes"] for s in both),
              "bytes": sum(s["io_bytes"] for s in both),
              "operations": sum(s["total_ios"] for s in both)}
    for key, name in PERCENTILES.items():
        result[key] = shown[name] / 1000
    return result


def run(jobs, env, seconds):
    """One run: what sides() says, and "client_cpu" in seconds."""
    process = subprocess.Popen(
        command(jobs), env=env, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    limit = threading.Timer(seconds + 60, process.kill)
    limit.start()
    text, errors = [], []
    reader = threading.Thread(
        target=lambda: errors.append(process.stderr.read()), daemon=True)
    reader.start()
    try:
        text = process.stdout.read().decode(errors="replace")
        reader.join()
        _, wstatus, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(wstatus)
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        limit.cancel()
        process.stdout.close()
        process.stderr.close()
    if process.returncode:
        raise FioError("fio ended with status %d: %s" % (
            process.returncode,
            b"".join(errors).decode(errors="replace").strip()[-600:]))
    result = sides(text)
    result["client_cpu"] = usage.ru_utime + usage.ru_stime
    return result


def own_cpu(engine, image, env):
    """What fio uses to start, connect and end: seconds of CPU."""
    times = []
    for _ in range(3):
        used = run(["--name=job", *engine, "--rw=read", "--bs=4096",
                    "--number_ios=1", "--size=%d" % image], env, 10)
        times.append(used["client_cpu"])
    return sorted(times)[1]


def measure(peer, workload, image, turn, seconds, osds):
    """A cell of one round: PEER under WORKLOAD."""
    if peer.own_cpu is None:
        peer.own_cpu = own_cpu(peer.engine(), image, peer.client_env())
    args = workload.fio(image, turn, seconds)
    before = peer.pid and cpu_seconds(peer.pid)
    osd = sum(map(cpu_seconds, osds))
    with Watch(peer.pid) as watch:
        result = run(["--name=job", *peer.engine(), *args],
                     peer.client_env(), seconds)
    if workload.writes:
        # What is still in its cache belongs to this peer's bill.
        peer.flush()
    result["client_cpu"] = max(result["client_cpu"] - peer.own_cpu, 0)
    if osds:  # of another's cluster they are elsewhere
        result["osd_cpu"] = sum(map(cpu_seconds, osds)) - osd
    if peer.pid:
        result["server_cpu"] = cpu_seconds(peer.pid) - before
        result["rss"] = watch.rss
        result["threads"] = watch.threads
    return result
