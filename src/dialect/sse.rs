//! Server-sent events (WHATWG HTML §9.2): bytes to events, wherever the bytes are cut.
