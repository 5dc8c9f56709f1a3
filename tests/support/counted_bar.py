"""Bars of progress that note what they are told and show nothing."""

from __future__ import annotations


def counted_bars(monkeypatch, *modules):
    """The bars that these modules will make, in a list that fills: ``total``, ``shown``, and ``n``, what was done."""
    made = []

    class Bar:
        def __init__(self, total, what, unit, shown):
            self.total, self.shown, self.n = total, shown, 0
            made.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, n=1):
            self.n += n

    for module in modules:
        monkeypatch.setattr(module, "progress_bar", Bar)
    return made
