"""Bodies of POST /import for Schemathesis: the lines of an export ($EXPORT), whole and spoilt, behind its first."""

import os

import schemathesis
from hypothesis import strategies as st

with open(os.environ["EXPORT"], "rb") as export:
    FIRST, *LINES = export.read().splitlines()


def spoilt(line: bytes, at: int, put: bytes) -> bytes:
    at %= len(line) + 1
    return line[:at] + put + line[at + len(put) :]


WHOLE = st.sampled_from(LINES)
SPOILT = st.builds(spoilt, WHOLE, st.integers(min_value=0), st.binary(min_size=1, max_size=4))
CUT = st.builds(lambda line, at: line[: at % (len(line) + 1)], WHOLE, st.integers(min_value=0))
OTHER = st.binary(max_size=64)

BODIES = st.lists(WHOLE | SPOILT | CUT | OTHER, max_size=12).map(lambda lines: b"\n".join([FIRST, *lines]))
schemathesis.openapi.media_type("application/x-ndjson", BODIES)


@schemathesis.serializer("application/x-ndjson")
def as_it_is(_context, body):
    return body if isinstance(body, bytes) else str(body).encode()
