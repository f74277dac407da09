"""What BigBrotr makes of a list of relay URLs: a program to run on any file, one URL a line.

    python src/check_relay_list.py seed_relays.txt --examples 5
    python src/check_relay_list.py found.txt --accepted > relays.txt

It reads files and asks nobody. Exit codes: 0 done, 1 a file names no relay, 2 one cannot be read.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from errors import ConfigError
from nostr.url_lists import MEANINGS, UrlReport
from relay_loader import read_relay_list


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code."""
    parser = argparse.ArgumentParser(description="Say what a list of relay URLs holds, and why not")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--examples", type=int, default=3, help="refused lines shown of each reason (3)"
    )
    parser.add_argument(
        "--accepted", action="store_true", help="print the relays instead, in canonical form"
    )
    parser.add_argument(
        "--allow-private", action="store_true", help="let private addresses and names pass"
    )
    options = parser.parse_args(argv)
    code = 0
    for path in options.files:
        try:
            report = read_relay_list(
                path, allow_private=options.allow_private, examples=options.examples
            )
        except ConfigError as error:
            print(f"check_relay_list: {error}", file=sys.stderr)
            return 2
        code = code if report.accepted else 1
        print(
            "\n".join(url.url for url in report.accepted)
            if options.accepted
            else describe(str(path), report)
        )
    return code


def describe(name: str, report: UrlReport) -> str:
    """The report for people: counts, then every reason with its meaning and some examples."""
    networks = Counter(url.network for url in report.accepted)
    refused = report.refused.total()
    lines = [
        f"{name}: {len(report.accepted) + report.duplicates + refused} URLs, "
        f"{len(report.accepted)} relays ({networks['clearnet']} clearnet, {networks['tor']} Tor), "
        f"{report.duplicates} repeated, {refused} refused"
    ]
    for reason, count in report.refused.most_common():
        lines.append(f"{count:>7} {reason}: {MEANINGS[reason]}")
        lines += [f"          {example!r}" for example in report.examples.get(reason, ())]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
