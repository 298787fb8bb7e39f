"""What the server must have seen of a download that was cut twice."""

import pytest

from board.poor_network import download_problems


@pytest.mark.parametrize(
    ("ranges", "sent", "problems"),
    [
        ([None, "bytes=300-", "bytes=600-"], 1100, 0),
        ([None, "bytes=300-", "bytes=600-", "bytes=700-"], 1100, 0),
        ([None, "bytes=300-"], 1100, 1),
        ([None, "bytes=300-", None], 1100, 1),
        ([None, "bytes=600-", "bytes=300-"], 1100, 1),
        ([None, None, None], 1900, 2),
        ([], 0, 1),
    ],
)
def test_a_download_that_was_cut_continues_where_it_was(
    ranges: list[str | None], sent: int, problems: int
) -> None:
    assert len(download_problems(ranges, sent, 1000)) == problems
