# SPDX-License-Identifier: BSD-3-Clause
"""Volumes as QEMU makes and reads them, by its own LUKS."""

import re

from lab.command import await_, run


def qemu_luks(secret, path, size, call=run):
    """A LUKS1 image as QEMU makes it; SECRET is the object "s" or "key".

    It times 32,768 iterations by its own CPU time, whose clock may not
    have moved after so few: then it gives up, and is asked again.
    """
    ident = re.search(r"\bid=(\w+)", secret)[1]

    def made():
        r = call("qemu-img", "create", "-q", "-f", "luks", "--object", secret,
                 "-o", "key-secret=%s,cipher-alg=aes-256,cipher-mode=xts,"
                 "ivgen-alg=plain64,iter-time=10" % ident, path, str(size),
                 check=False)
        assert r.returncode == 0 or b"accurate CPU usage" in r.stderr, \
            r.stderr.decode(errors="replace")
        return r.returncode == 0
    await_(made, 60, "qemu-img makes a LUKS image")


def cinder(images, secret, directory, size, args=()):
    """An image as Cinder's RBD driver makes it; its payload of SIZE holds
    1 MiB of 0xa5 at 1 MiB."""
    path = str(directory / "cinder")
    qemu_luks(secret, path, size)
    run("qemu-io", "--object", secret, "--image-opts", "-c",
        "write -P 0xa5 1M 1M",
        "driver=luks,key-secret=s,file.driver=file,file.filename=" + path)
    image = images.imported(path, args)
    image.offset, image.size = image.size - size, size
    return image


def qemu_reads(image, secret, tmp_path):
    """The payload, by QEMU's own LUKS."""
    raw, out = str(tmp_path / "raw"), str(tmp_path / "out")
    with open(raw, "wb") as f:
        f.write(image.raw())
    run("qemu-img", "convert", "--object", secret, "--image-opts",
        "driver=luks,key-secret=s,file.driver=file,file.filename=" + raw,
        "-O", "raw", out, timeout=120)
    with open(out, "rb") as f:
        return f.read()
