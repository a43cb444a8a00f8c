# SPDX-License-Identifier: BSD-3-Clause
"""AES-XTS by Python's cryptography: a reader and a writer of LUKS payloads
that has no line in common with librbd or this plugin."""

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


class Sectors:
    """Of SIZE bytes each, numbered in units of 512 from the payload's
    beginning (plain64)."""

    def __init__(self, key, size):
        self.key, self.size = algorithms.AES(key), size

    def _run(self, data, offset, begin):
        assert offset % self.size == 0 and len(data) % self.size == 0
        out = bytearray()
        for at in range(0, len(data), self.size):
            sector = data[at:at + self.size]
            tweak = ((offset + at) // 512).to_bytes(16, "little")
            out += begin(Cipher(self.key, modes.XTS(tweak))).update(sector)
        return bytes(out)

    def encrypt(self, data, offset):
        return self._run(data, offset, Cipher.encryptor)

    def decrypt(self, data, offset):
        """Sectors of zeros only were never written."""
        zeros, out = bytes(self.size), []
        for at in range(0, len(data), self.size):
            sector = data[at:at + self.size]
            out.append(sector if sector == zeros else
                       self._run(sector, offset + at, Cipher.decryptor))
        return b"".join(out)
