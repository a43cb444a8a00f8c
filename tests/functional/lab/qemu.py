# SPDX-License-Identifier: BSD-3-Clause
"""Volumes as QEMU makes and reads them, by its own LUKS."""

import os
import re
import shutil

from lab.command import await_, run
from lab.settings import PASSPHRASE

# Where the payload begins.
OFFSET = 2068480


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


def header(directory):
    """A file that ends where the payload would begin, for the passphrase of
    all images; made once, as QEMU times its iterations for a second or two."""
    path = os.path.join(directory, "qemus")
    if not os.path.exists(path):
        with open(path + ".secret", "wb") as f:
            f.write(PASSPHRASE)
        qemu_luks("secret,id=s,file=%s.secret" % path, path + ".new", 512)
        assert os.path.getsize(path + ".new") == OFFSET + 512
        os.truncate(path + ".new", OFFSET)
        os.rename(path + ".new", path)
    return path


def volume(images, path, size):
    """Make a volume at PATH with that header and a payload of SIZE."""
    shutil.copyfile(header(images.dir), path)
    os.truncate(path, OFFSET + size)
    return path


def cinder(images, secret, directory, size, args=()):
    """An image as Cinder's RBD driver makes it; its payload of SIZE holds
    1 MiB of 0xa5 at 1 MiB."""
    path = volume(images, str(directory / "cinder"), size)
    run("qemu-io", "--object", secret, "--image-opts", "-c",
        "write -P 0xa5 1M 1M",
        "driver=luks,key-secret=s,file.driver=file,file.filename=" + path)
    image = images.imported(path, args)
    image.offset, image.size = OFFSET, size
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
