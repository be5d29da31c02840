//! NDJSON, one JSON document a line: bytes to lines, wherever the bytes are cut.
