"""The commands as a person types them, with no server running."""

import json
import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import command, environment, penstock, penstock_json


def test_an_indexed_tree_is_found_by_plain_words(tree, data_dir):
    report = penstock_json("index", tree, "--data-dir", data_dir)
    assert report["indexed"] == 5
    assert report["failed"] == 0
    assert report["skipped"] == {"ignored": 1, "binary": 1, "lock_file": 1}
    for words, path in (("parse a JSON string", "pkg/decoder.py"), ("plant a tree", "README.md")):
        hits = penstock_json("search", words, "--data-dir", data_dir)["hits"]
        assert hits[0]["path"] == path
    narrowed = penstock_json("search", "tree", "--path-prefix", "pkg/", "--data-dir", data_dir)["hits"]
    assert {hit["path"] for hit in narrowed} == {"pkg/decoder.py", "pkg/proxy.py"}
    markdown = penstock_json("search", "tree", "--language", "markdown", "--data-dir", data_dir)["hits"]
    assert {hit["path"] for hit in markdown} == {"README.md"}


def test_a_second_run_touches_only_what_changed(tree, data_dir):
    penstock_json("index", tree, "--data-dir", data_dir)
    unchanged = penstock_json("index", tree, "--data-dir", data_dir)
    assert (unchanged["indexed"], unchanged["unchanged"], unchanged["removed"]) == (0, 5, 0)
    (tree / "pkg" / "proxy.py").unlink()
    (tree / "README.md").write_text("# A tree\n\nNow it is about penguins.\n")
    changed = penstock_json("index", tree, "--data-dir", data_dir)
    assert (changed["indexed"], changed["unchanged"], changed["removed"]) == (1, 3, 1)
    hits = penstock_json("search", "penguins", "--data-dir", data_dir)["hits"]
    assert hits[0]["path"] == "README.md"
    assert "pkg/proxy.py" not in {hit["path"] for hit in hits}
    assert "Plant it" not in "".join(hit["text"] for hit in hits)


def test_nothing_found_exits_1_and_an_error_exits_2(tree, data_dir):
    penstock("index", tree, "--data-dir", data_dir)
    assert penstock("search", "tree", "--data-dir", data_dir).returncode == 0
    assert penstock("search", "tree", "--path-prefix", "nowhere/", "--data-dir", data_dir).returncode == 1
    missing = penstock("search", "tree", "--collection", "nope", "--data-dir", data_dir)
    assert missing.returncode == 2
    assert "nope" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_piped_output_has_no_colour(tree, data_dir):
    penstock("index", tree, "--data-dir", data_dir)
    done = penstock("search", "parse a JSON string", "--data-dir", data_dir)
    assert "\x1b" not in done.stdout
    assert "pkg/decoder.py:" in done.stdout


def test_output_that_cannot_be_written_is_one_error():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("config"), stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), check=False
        )
    assert (done.returncode, done.stderr) == (2, "error: No space left on device\n")


def test_a_dry_run_needs_no_model_and_writes_nothing(tree, tmp_path):
    done = penstock("index", tree, "--dry-run", "--data-dir", tmp_path / "untouched")
    assert done.returncode == 0
    assert "decoder.py" in done.stdout
    assert "picture.png" in done.stdout
    assert not (tmp_path / "untouched").exists()


def test_the_whole_disk_and_the_home_directory_are_refused(data_dir):
    for path in ("/", str(Path.home())):
        done = penstock("index", path, "--data-dir", data_dir)
        assert done.returncode == 2
        assert "--force" in done.stderr


def test_odd_trees_do_no_harm(tree, data_dir, tmp_path):
    outside = tmp_path / "outside.py"
    outside.write_text("secret = 1\n")
    (tree / "loop").symlink_to(tree, target_is_directory=True)
    (tree / "escape.py").symlink_to(outside)
    (tree / "broken.py").symlink_to(tree / "gone")
    (tree / "mangled.py").write_bytes(b"def caf\xe9():\n    return '\xff'\n")
    (tree / "one_line.js").write_text("x=1;" * 50_000)
    (tree / "empty.py").write_text("")
    os.mkfifo(tree / "pipe")
    report = penstock_json("index", tree, "--data-dir", data_dir)
    assert report["failed"] == 0
    assert report["indexed"] == 6
    assert report["encodings"] == {"cp1252": 1}
    assert report["skipped"]["minified"] == 1
    assert report["skipped"]["symlink_outside"] == 1
    assert report["skipped"]["not_a_file"] == 1


@pytest.mark.timeout(300)
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_is_taken_up_again(tree, data_dir):
    for number in range(150):
        functions = (f"def function_{number}_{k}(value):\n" + f"    value += {k}\n" * 40 for k in range(5))
        (tree / f"module_{number}.py").write_text("\n\n".join(functions))
    process = subprocess.Popen(
        command("index", tree, "--data-dir", data_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert process.stderr is not None
    for line in process.stderr:
        # All are found by words, and some by meaning: a line comes every few seconds.
        if re.match("Vectors: [1-9]", line):
            break
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    report = penstock_json("index", tree, "--data-dir", data_dir)
    assert report["indexed"] + report["unchanged"] == 155
    assert report["unchanged"] > 0
    assert report["pending"] == 0
    status = penstock_json("status", "--data-dir", data_dir)
    assert status["collections"][0]["documents"] == 155


def test_eval_scores_a_beir_directory(tmp_path, data_dir):
    beir = tmp_path / "tiny"
    (beir / "qrels").mkdir(parents=True)
    texts = {"a": "the cat sat on the mat", "b": "stock markets fell sharply", "c": "rain in the mountains"}
    corpus = [{"_id": key, "title": "", "text": text} for key, text in texts.items()]
    (beir / "corpus.jsonl").write_text("".join(json.dumps(one) + "\n" for one in corpus))
    (beir / "queries.jsonl").write_text('{"_id": "1", "text": "cat on a mat"}\n{"_id": "2", "text": "share prices"}\n')
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t1\n2\tb\t1\n")
    report = penstock_json("eval", beir, "--data-dir", data_dir)
    assert report["collection"] == "tiny"
    assert report["queries"] == 2
    assert set(report["ndcg@10"]) == set(report["recall@100"]) == {"sparse", "dense", "hybrid", "default"}
    assert report["ndcg@10"]["default"] == 1.0


#: Completes the last of some words as bash does when tab is pressed, and prints what it would offer.
_COMPLETE = """
source <(penstock completion bash)
COMP_WORDS=(penstock "$@"); COMP_CWORD=$#
_penstock_completion penstock
echo "${COMPREPLY[*]}"
"""


def test_bash_completes_commands_and_names_that_a_running_server_lists(tree, tmp_path, serve):
    server = serve()
    penstock_json("index", tree, "--collection", "orchard", "--data-dir", server.data_dir)
    (program := tmp_path / "bin" / "penstock").parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.join(command())} "$@"\n')
    program.chmod(0o755)
    environ = environment()

    def offered(*words):
        done = subprocess.run(
            ["bash", "-c", _COMPLETE, "bash", *map(str, words)],
            env=environ | {"PATH": f"{program.parent}:{environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert done.stderr == ""
        return done.stdout.split()

    assert offered("se") == ["serve", "search"]
    there = ("--data-dir", server.data_dir)
    assert offered("search", *there, "--collection", "") == ["orchard"]
    penstock_json("index", tree, "--collection", "orange", "--data-dir", server.data_dir)
    assert offered("search", *there, "--collection", "orchard,o") == ["orchard,orange"]
    assert offered("search", *there, "--op") == ["--open"]
    assert offered("forget", "--collection", "orchard", *there, "t") == ["tree"]
    assert offered("collections", "delete", *there, "x") == []
    assert server.terminate()[0] == 0
    assert offered("search", *there, "--collection", "") == []
