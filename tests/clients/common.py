"""What the Python client scripts share: arguments, the table of cases, and reading `Cache-Status`."""

import argparse
import sys

# The same questions in every script; each script has a key of its own, so that they never share entries.
QUESTION = "What is the capital of France?"
WHITESPACE_VARIANT = "  What  is the capital of France? \n"
PARAPHRASE = "What's the capital city of France?"
STREAMED_QUESTION = "How many legs does a spider have?"
TOOL_QUESTION = "Use the weather tool for Paris."
ANSWER_START = "[simulated]"


class Cases:
    """Runs cases one after the other, prints a line for each, and remembers whether all went well."""

    def __init__(self, client):
        parser = argparse.ArgumentParser(description=__doc__)
        parser.add_argument("url", help="the server's base URL, without /v1")
        parser.add_argument(
            "--direct", action="store_true", help="the server is no cache: expect no Cache-Status"
        )
        arguments = parser.parse_args()
        self.url = arguments.url.rstrip("/")
        self.direct = arguments.direct
        self.client = client
        self.failures = 0

    def run(self, name, expected, case):
        """`case` returns the response's headers; `expected` is miss, exact, semantic or none."""
        try:
            headers = case()
            status = self._check(expected, headers)
            outcome = "ok"
        except Exception as error:  # every failure of a case is the case's result
            self.failures += 1
            status, outcome = "", f"FAILED {type(error).__name__}: {' '.join(str(error).split())}"
        print(f"{self.client:<18} {name:<34} {status:<62} {outcome}", flush=True)

    def finish(self):
        sys.exit(1 if self.failures else 0)

    def _check(self, expected, headers):
        status = headers.get("cache-status")
        if self.direct:
            assert status is None, f"a direct reply with Cache-Status {status}"
            return ""
        assert status is not None, "no Cache-Status"
        member = [part.strip() for part in status.split(",")[-1].split(";")]
        assert member[0] == "rejoinder", status
        if expected == "none":
            # An error is relayed: it went forward, and was not stored.
            assert any(part.startswith("fwd=") for part in member), status
            assert "hit" not in member and "stored" not in member, status
        elif expected == "miss":
            assert "fwd=miss" in member and "hit" not in member, status
        else:
            assert "hit" in member and f"detail={expected}" in member, status
            assert int(headers["age"]) >= 0
            assert headers["x-rejoinder-entry"]
            assert 0.0 < float(headers["x-rejoinder-similarity"]) <= 1.0
        return status


def same(cases, first, second):
    """A hit has the very answer of the miss, if not in the same pieces. Direct, each question has its own."""
    assert first.startswith(ANSWER_START), first
    if not cases.direct:
        assert first == second, f"{first!r} is not {second!r}"
