"""Bars of progress: on standard error, if they are wanted, and gone at the end."""

from __future__ import annotations

from bayesflowmass.common.progress import progress_bar


def test_a_bar_is_shown_where_it_is_wanted_and_gone_at_the_end(capsys):
    with progress_bar(3, "masses", " clusters", shown=False) as bar:
        bar.update(3)
    assert capsys.readouterr() == ("", "")
    with progress_bar(3, "masses", " clusters", shown=True) as bar:
        bar.update(1)
        bar.refresh()
    shown = capsys.readouterr()
    assert "masses:  33%" in shown.err
    assert "1/3" in shown.err
    assert "clusters/s" in shown.err
    assert shown.err.endswith("\r")
    assert shown.out == ""
