"""Questions that differ in what they ask, and ways to ask each."""

TASKS = (
    "reverse a list in Python", "boil an egg", "tie a bow tie", "compile a kernel", "plant tomatoes",
    "remove a coffee stain", "learn to whistle", "fold a fitted sheet", "sharpen a kitchen knife",
    "write a haiku", "train for a marathon", "descale a kettle", "read a weather map", "merge two branches in git",
    "paint a ceiling", "prune a rose bush", "renew a passport", "bleed a radiator", "memorise a speech",
    "change a bicycle tyre",
)  # fmt: skip
ASKED = "How do I {}?"
REWORDED = ("How can I {}?", "What is the way to {}?", "How would I {}?", "How should I {}?", "What's the way to {}?")
# A header field of a request of which nothing is remembered: its question is asked for the first time each time.
FLEETING = "X-Rejoinder-TTL: 0"
