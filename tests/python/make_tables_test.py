"""Tables that are put into documents."""

from __future__ import annotations

import pathlib

TOOLS = pathlib.Path(__file__).resolve().parent.parent.parent / "tools"


def test_a_table_that_is_still_empty_is_filled_and_what_follows_stays(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import make_tables

    empty = "<!-- table: a -->\n<!-- end table -->\ntext\n<!-- table: b -->\nold\nrows\n<!-- end table -->\n"
    first = make_tables.filled(empty, "a", "new")
    assert first == empty.replace("<!-- table: a -->\n", "<!-- table: a -->\nnew\n")
    assert make_tables.filled(first, "b", "more") == first.replace("old\nrows", "more")
    assert make_tables.filled(first, "b", "old\nrows") == first and make_tables.filled(first, "c", "x") is None
