from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from toxscreen.repairing.manifest import digest, guarded, read_record, unguarded


@given(st.text(st.sampled_from("'=+-@\t\r\na＝"), max_size=5))
def test_a_guarded_cell_is_no_formula_and_comes_back(cell):
    shown = guarded(pa.array([cell]))[0].as_py()
    assert shown[:1] not in tuple("=+-@\t\r\n＝")
    assert unguarded(shown) == cell


def test_a_record_that_cannot_be_read_is_as_good_as_none(tmp_path):
    assert read_record(tmp_path / "none.json") == {}
    for content in (b"[1]", b"{broken", b"\xff", b"[" * 100_000):
        (tmp_path / "record.json").write_bytes(content)
        assert read_record(tmp_path / "record.json") == {}


def test_a_file_that_is_not_there_has_no_digest(tmp_path):
    (tmp_path / "x").write_bytes(b"x")
    assert digest(tmp_path / "none") == digest(tmp_path) == ""
    assert len(digest(tmp_path / "x")) == 64
