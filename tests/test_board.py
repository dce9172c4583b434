"""The verdict board says everything in words, hides nothing behind colour and names data and command."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

from prorl_study import board, claims
from prorl_study.files import digest

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


def committed() -> list[dict]:
    return json.loads((RESULTS / "claims.json").read_text())


def entries(page: str) -> dict[str, str]:
    return {m[1]: m[0] for m in re.finditer(r'<details id="([^"]+)">.*?</details>', page, re.DOTALL)}


class Text(HTMLParser):
    """What a reader sees with neither colour nor pictures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.found.append(data)


def test_every_claim_has_a_row_that_says_verdict_and_sentence_in_words():
    rows = committed()
    found = entries(board.board(rows, RESULTS).data)
    assert list(found) == [row["id"] for row in rows]
    for row in rows:
        text = " ".join(Text(found[row["id"]]).found)
        for part in (
            row["verdict"].capitalize(),
            row["statement"],
            row["sentence"],
            row["measure"],
            row["test"],
        ):
            assert part in text, (row["id"], part)


def test_a_row_that_ran_opens_to_its_figure_its_data_with_checksums_and_its_command():
    rows = committed()
    found = entries(board.board(rows, RESULTS).data)
    patterns = {claim.id: claim.data for claim in claims.CLAIMS}
    for row in rows:
        entry = found[row["id"]]
        assert ("<img alt=" in entry) == (row["value"] is not None)
        if row["verdict"] == "not run":
            assert "SHA-256" not in entry
            continue
        paths = sorted(path for pattern in patterns[row["id"]] for path in RESULTS.glob(pattern))
        assert paths and all(digest(path) in entry for path in paths)
        assert not any(f"runs/{other}-" in entry for other in ("tuning", "screening", "reset"))
        assert "dvc repro claims" in entry


def test_the_same_rows_give_the_same_bytes_without_script_or_link_to_another_host():
    first, second = (board.board(committed(), RESULTS).data for _ in range(2))
    assert first == second and "<script" not in first and "http" not in first


def test_text_of_a_claim_is_escaped():
    (row, *_) = committed()
    page = board.board([row | {"statement": "<b>bold</b>", "detail": '"><script>'}], RESULTS).data
    assert "<b>bold" not in page and "<script" not in page
