"""The fuzzer of readers: a few damaged files of each form, and that it sees a reader that fails."""

from __future__ import annotations

import numpy as np

from benchmarks import fuzz_readers


def test_damaged_files_end_in_a_table_or_in_one_sentence(capsys):
    assert fuzz_readers.main(["--n", "270", "--seed", "5"]) == 0
    assert "270 files in 27 forms: 0 faults." in capsys.readouterr().out


def test_a_reader_that_loses_rows_or_raises_is_seen(tmp_path):
    data, read, lines = fuzz_readers.seeds()["csv"]
    found = set()
    for number in range(60):
        for reader in (lambda path: read(path)[:5], lambda path: 1 / 0):
            rng = np.random.default_rng(number)
            found.add(fuzz_readers.check("csv", (data, reader, lines), tmp_path / "t", rng)[:17])
    assert {"ZeroDivisionError", "5 of 24 rows, and"} <= found


def test_a_value_that_another_reader_has_otherwise_is_seen(tmp_path):
    data, read, _ = fuzz_readers.seeds()["csv"]
    (tmp_path / "t.csv").write_bytes(data)
    table = read(tmp_path / "t.csv")
    assert fuzz_readers.other_value("csv", data, table) == ""
    table["v_los"] = 1.001 * table["v_los"]
    assert "of v_los was read as" in fuzz_readers.other_value("csv", data, table)
