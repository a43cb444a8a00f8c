# SPDX-License-Identifier: BSD-3-Clause
"""What contrib/quickstart takes for its own, and what it leaves alone.

A copy of it, beside a package installer that fails: so up ends after its
first step, which is all that a directory needs to be quickstart's.
"""

import os
import shutil

import pytest

import lab


@pytest.fixture
def quickstart(tmp_path):
    """quickstart(DIRECTORY, WORD...): what came of it."""
    top = tmp_path / "tree"
    env = top / "tests" / "env"
    (top / "contrib").mkdir(parents=True)
    env.mkdir(parents=True)
    script = shutil.copy(os.path.join(lab.TOP, "contrib", "quickstart"),
                         top / "contrib")
    for name in "packages", "cluster", "openbao":
        (env / name).write_text("#!/bin/sh\necho no; exit 1\n")
        (env / name).chmod(0o755)

    def run(directory, *words):
        return lab.run(script, *words, check=False, timeout=60, env={
            "PATH": os.environ["PATH"], "QUICKSTART_DIR": str(directory)})
    return run


def refused(r, *words, status=1):
    assert r.returncode == status
    [line] = r.stderr.decode().splitlines()
    for word in words:
        assert word in line


def refused_at_once(quickstart, directory, sentence):
    for word in "up", "status", "down":
        refused(quickstart(directory, word), "QUICKSTART_DIR", sentence)
    assert not directory.exists()


def tree(directory):
    return sorted(str(p) for p in directory.rglob("*"))


def stopped_after_its_first_step(r):
    assert r.returncode == 1
    assert "step 1 (Debian packages) failed: packages are missing" \
        in r.stderr.decode()


@pytest.mark.parametrize("before", ("none", "empty"))
def test_what_up_made_is_used_again_and_removed_by_down(
        quickstart, tmp_path, before):
    directory = tmp_path / "qs"
    if before == "empty":
        directory.mkdir()
    for _ in range(2):
        stopped_after_its_first_step(quickstart(directory))
    # A slash at the end names the same directory.
    assert quickstart(str(directory) + "/", "down").returncode == 0
    assert not directory.exists()


@pytest.mark.parametrize("name", ("log", "data"))
@pytest.mark.parametrize("word", ("up", "down"))
def test_a_foreign_directory_stays_as_it_is(
        quickstart, tmp_path, word, name):
    directory = tmp_path / "theirs"
    (directory / name).mkdir(parents=True)
    (directory / name / "file").write_text("precious")
    before = tree(directory)
    refused(quickstart(directory, word), str(directory))
    assert tree(directory) == before


def test_a_directory_of_another_user_is_not_taken(quickstart, tmp_path):
    """Who may write below /var/tmp could have made it for root to fill."""
    directory = tmp_path / "qs"
    stopped_after_its_first_step(quickstart(directory))
    os.chown(directory, 65534, 65534)
    for word in "up", "down":
        refused(quickstart(directory, word), str(directory))
    link = tmp_path / "link"
    os.chown(directory, 0, 0)
    link.symlink_to(directory)
    for word in "up", "down":
        refused(quickstart(link, word), str(link))
    assert (directory / "log").is_dir()


def test_down_says_where_it_looked(quickstart, tmp_path):
    refused(quickstart(tmp_path / "none", "down"), str(tmp_path / "none"),
            "QUICKSTART_DIR")


@pytest.mark.parametrize("word", ("up", "status", "down", "--help"))
def test_more_than_one_word_is_a_usage_error(quickstart, tmp_path, word):
    directory = tmp_path / "qs"
    stopped_after_its_first_step(quickstart(directory))
    before = tree(directory)
    r = quickstart(directory, word, "now")
    assert (r.returncode, r.stdout) == (2, b"")
    assert b"contrib/quickstart down" in r.stderr
    assert tree(directory) == before


@pytest.mark.parametrize("name", (
    "with blank", "tab\t", "line\n", "$HOME", "a#b", "a'b", 'a"b', "a\\b",
    "a&b", "a,b", "a:b", "a;b", "a%20b", "a=b", "caf\u00e9", "*", "~"))
def test_a_name_that_others_would_misread_is_refused(
        quickstart, tmp_path, name):
    refused_at_once(quickstart, tmp_path / name, "letters, digits")


def test_a_name_too_long_for_its_sockets_is_refused(quickstart, tmp_path):
    room = 107 - len("/openbao/agent.sock") - len(str(tmp_path)) - 1
    refused_at_once(quickstart, tmp_path / ("x" * (room + 1)), "too long")
    stopped_after_its_first_step(quickstart(tmp_path / ("x" * room)))


@pytest.mark.parametrize("name", ("relative", "/", "///"))
def test_a_name_that_is_no_directory_of_its_own_is_refused(quickstart, name):
    for word in "up", "status", "down":
        refused(quickstart(name, word), "absolute path")
