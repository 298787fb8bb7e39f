"""Find phrases that docs/contributing.md advises against, in comments, strings, Markdown and man pages.

`.ci/words-allowed` holds how many each file may have, so that the number falls: a file that is not in it may
have none. `--rewrite` counts again; run it after you removed some, or moved a file.
"""

import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ALLOWED = ROOT / ".ci" / "words-allowed"
FILES = ("README.md", "Makefile", "pyproject.toml")
DIRECTORIES = (".ci", "mender_oneshot", "tests", "cron", "systemd-timers", "docs")
EXEMPT = (".ci/words.py", ".ci/words-allowed", "docs/contributing.md", "docs/reference/openapi/")
TEXT = re.compile(r"[^.]+|.*\.([157]|md|py|sh|service|timer|toml|bash|fish|zsh|postrm)")

PHRASES = {
    r"mend(s|ed|ing)?": "fix, correct",
    r"for ever": "forever, never",
    r"go(es|ing)? on|went on": "continue, resume",
    r"look(s|ed|ing)? at": "check",
    r"in (the|a|an|its|his|our|their|[\w-]+'s) hands?": "is being installed",
    # not the user of that name: quoted, or a table's "nobody; cwd /"
    r"whoever|somebody|(?<![`\"'])nobody(?!;)|everybody|anybody": "name the server, the user or the program",
    r"(is|are|was|were|be|been) told( of)?": "is informed, gets, sees",
    r"shall": "must, will",
    r"withdr[ae]w(s|n|ing)?": "abort",
    r"silent for (too|so) long": "time out",
    r"(do|does|did|done) without|switch(es|ed)? off": "disable",
    r"once more|anew": "again, retry",
    r"(stay|keep)s? away": "back off",
    r"spoil(s|t|ed)?": "corrupt",
    r"damaged": "corrupt",
    r"w[io]ns? over": "override",
    r"(?<!connection\W)refus(e|es|ed|ing|al)": "reject",
    r"(behind|beyond) (the|its) end": "after the end",
    r"says? no|said no": "reject",
    r"signs? of life|last words|farewell": "ping, final message, close",
    r"(is|are) dear(er)?": "is slow, costs more",
    r"(of|makes?) no sense": "is invalid",
    r"com(e|es|ing) to nothing": "fails",
    r"of second rank|vouch(es)?": "say what it means",
    r"of (its|their|his) own accord": "automatically",
    r"what is missing for": "what needs",
    r"small letters": "lower case",
    r"by turns": "alternately",
    r"rhythm": "schedule, interval",
    r"afresh": "start over, again",
    r"begun": "started",
    r"half-?way": "name the point",
    r"in vain": "without success",
    r"for good": "permanently",
    r"(break|breaks|broke|broken|breaking) off": "be lost, interrupt",
    r"mak(e|es|ing) room": "free some space",
    r"(tak(e|es|en|ing)|took) the place of": "replace",
    r"strangers?": "untrusted, another user",
}
NUMBERED = [rf"(?P<n{number}>{phrase})" for number, phrase in enumerate(PHRASES)]
ANY = re.compile(rf"\b({'|'.join(NUMBERED)})\b".replace(" ", r"\s+"), re.IGNORECASE)


def prose(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """Yield the number of a first line, and the text that starts there."""
    if path.suffix != ".py":
        yield 1, text
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if tokenize.tok_name[token.type] in ("COMMENT", "STRING", "FSTRING_MIDDLE"):
            yield token.start[0], token.string


def hits(path: Path) -> list[str]:
    """Return a line for each phrase in a file: where it is, and what to write."""
    found = []
    better = list(PHRASES.values())
    for first, text in prose(path, path.read_text(encoding="utf-8", errors="replace")):
        for match in ANY.finditer(text):
            line = first + text.count("\n", 0, match.start())
            (number,) = [int(name[1:]) for name, words in match.groupdict().items() if words]
            words = " ".join(match[0].split())
            found.append(f"{path.relative_to(ROOT)}:{line}: {words!r}; write: {better[number]}")
    return found


def main() -> int:
    """Compare every file with the number it may have, or write the numbers down."""
    paths = [path for name in DIRECTORIES for path in (ROOT / name).rglob("*")]
    files = [path for path in paths if path.is_file() and TEXT.fullmatch(path.name)]
    names = {str(path.relative_to(ROOT)): path for path in [*files, *(ROOT / name for name in FILES)]}
    found = {name: hits(names[name]) for name in sorted(names) if not name.startswith(EXEMPT)}
    if sys.argv[1:] == ["--rewrite"]:
        ALLOWED.write_text("".join(f"{len(lines)} {name}\n" for name, lines in found.items() if lines))
        return 0
    rows = [line.split(" ", 1) for line in ALLOWED.read_text().splitlines()]
    allowed = {name: int(number) for number, name in rows}
    worse = [name for name, lines in found.items() if len(lines) > allowed.get(name, 0)]
    for name in worse:
        print(*found[name], f"{name} has {len(found[name])}, and may have {allowed.get(name, 0)}.", sep="\n")
    if worse:
        print("Write it plainly (docs/contributing.md). After a file was moved: .ci/words.py --rewrite")
    return bool(worse)


sys.exit(main())
