"""What is printed: nothing that a terminal obeys, nothing that a closed pipe makes of it, in any locale."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bayesflowmass
from bayesflowmass.common.terminal import plain
from bayesflowmass.infer import main as infer_main
from bayesflowmass.inspect import main as inspect_main
from bayesflowmass.train import main as train_main

PACKAGE = Path(bayesflowmass.__file__).parent
# Clear the screen, set its title, a line that overwrites this one, text from right to left.
EVIL = "\x1b[2J\x1b]0;title\x07\rfine\u202e"


def can_name(text):
    """Skip where files cannot be called so: in a C locale Python names them in ASCII."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        pytest.skip(f"files cannot be called {plain(text)!a} here")


def is_plain(text):
    return all(letter.isprintable() or letter in "\n\t" for letter in text)


@given(st.text())
def test_plain_text_is_printable_and_says_what_it_leaves_out(text):
    shown = plain(text)
    assert is_plain(shown)
    assert plain(shown) == shown
    if is_plain(text):
        assert shown == text


def test_control_characters_are_shown_as_escapes():
    assert plain("a\x1b[31mb\r\x9b\u202e\n\tc") == "a\\x1b[31mb\\r\\x9b\\u202e\n\tc"


def test_only_one_place_prints():
    """A print elsewhere would send what stands in files to the terminal as it is."""
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Name) and node.id == "print"
    ]
    assert [place.split(":")[0] for place in found] == ["common/terminal.py"]


def test_column_names_and_file_names_do_not_reach_the_terminal_as_they_are(tmp_path, capsys):
    can_name(EVIL)
    table = tmp_path / f"{EVIL}.csv"
    table.write_text(f"cluster_id,x,y,v_los,{EVIL[:-5]}\nA,0.1,0.2,300,1\n", encoding="utf-8")
    assert inspect_main([str(table)]) == 2
    assert infer_main(["--galaxies", str(table), "--out", str(tmp_path / "m.ecsv")]) == 2
    assert infer_main(["--galaxies", str(table), "--column", f"x={EVIL}"]) == 2
    found = capsys.readouterr()
    assert "\\x1b[2J" in found.out
    assert "\\x1b[2J" in found.err
    assert is_plain(found.out + found.err)


def test_keys_of_settings_do_not_reach_the_terminal_as_they_are(tmp_path, capsys):
    (tmp_path / "s.yaml").write_text('"fit\\e[2J": 1\n', encoding="utf-8")
    assert train_main(["--config", str(tmp_path / "s.yaml")]) == 2
    with pytest.raises(SystemExit):
        train_main([f"--{EVIL}", "1"])
    error = capsys.readouterr().err
    assert "Unknown key 'fit\\x1b[2J'" in error
    assert is_plain(error)


def test_a_line_of_a_report_stays_a_line(tmp_path, capsys):
    (tmp_path / "a\nIt can be used.csv").write_text("cluster_id\nA\n", encoding="utf-8")
    inspect_main([str(tmp_path / "a\nIt can be used.csv")])
    assert not any(line.startswith("It can be used") for line in capsys.readouterr().out.splitlines())


def run(words, *, stdout=subprocess.PIPE, locale=()):
    """A command in a process of its own."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHONUTF8"))
    }
    return subprocess.run(
        [sys.executable, "-m", "bayesflowmass", *words],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment | dict(locale),
        check=False,
        timeout=120,
    )


@pytest.mark.skipif(os.name == "nt", reason="pipes are closed otherwise there")
@pytest.mark.parametrize("words", [["--help"], ["infer", "--help"], ["inspect", "TABLE"]], ids=" ".join)
def test_a_pipe_that_nobody_reads_is_no_error(words, tmp_path):
    (tmp_path / "t.csv").write_text("cluster_id,x,y,v_los\nA,0.1,0.2,300\n", encoding="utf-8")
    words = [word.replace("TABLE", str(tmp_path / "t.csv")) for word in words]
    reader, writer = os.pipe()
    os.close(reader)
    try:
        found = run(words, stdout=writer)
    finally:
        os.close(writer)
    assert found.stderr == b""
    assert found.returncode in (0, 2)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_a_full_disk_below_standard_output_is_one_sentence(tmp_path):
    (tmp_path / "t.csv").write_text("cluster_id,x,y,v_los\nA,0.1,0.2,300\n", encoding="utf-8")
    with Path("/dev/full").open("wb") as full:
        found = run(["inspect", str(tmp_path / "t.csv")], stdout=full)
    assert found.returncode == 2
    assert found.stderr.decode() == "bayesflowmass inspect: error: the disk is full.\n"


def test_a_locale_without_the_letters_is_no_error(tmp_path):
    can_name("Übersicht ☉")
    (tmp_path / "Übersicht ☉.csv").write_text("cluster_id,x,y,v_los\nA,0.1,0.2,300\n", encoding="utf-8")
    plain_c = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    found = run(["inspect", str(tmp_path / "Übersicht ☉.csv")], locale=plain_c.items())
    assert found.returncode == 2
    assert b"Traceback" not in found.stderr
    assert b"can be used" in found.stdout or b"cannot be used" in found.stdout
