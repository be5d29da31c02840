"""Minimal edits of prompts, made on purpose: some change nothing decisive, some exactly one decisive thing.

Used by scripts/train-verifier. Every choice is drawn from the generator passed in, so that the same seed gives the same edits.
"""

import re

NUMERALS = {
    "0": "zero", "1": "one", "2": "two", "3": "three", "4": "four", "5": "five", "6": "six", "7": "seven", "8": "eight",
    "9": "nine", "10": "ten", "11": "eleven", "12": "twelve", "15": "fifteen", "20": "twenty", "30": "thirty", "50": "fifty",
    "100": "a hundred",
}  # fmt: skip

# Two ways to write the same.
SPELLINGS = [
    tuple(pair.split("="))
    for pair in (
        "what is=what's|how do i=how'd i|do not=don't|does not=doesn't|is not=isn't|can not=can't|cannot=can't|i am=i'm|who is=who's|"
        "where is=where's|it is=it's|i have=i've|will not=won't|did not=didn't|should not=shouldn't|are not=aren't|want to=wanna|"
        "going to=gonna|you=u|please=pls|because=cuz|people=ppl|without=w/o|and=&|versus=vs|for example=e.g.|percent=%|minutes=min|"
        "hours=hrs|kilometers=km|kilograms=kg|dollars=usd|photograph=photo|refrigerator=fridge|television=tv|javascript=js|"
        "typescript=ts|kubernetes=k8s|postgresql=postgres|united states=us|united kingdom=uk|new york city=nyc|okay=ok|color=colour|"
        "favorite=favourite|center=centre|organize=organise|optimize=optimise|summarize=summarise|analyze=analyse|"
        "traveling=travelling|directory=folder|application=app|information=info|difference=diff|database=db|repository=repo|"
        "environment variable=env var"
    ).split("|")
]

BEFORE = [
    "please ", "can you ", "could you ", "hey, ", "hi! ", "quick question: ", "hello, ", "i was wondering, ", "can you tell me: ",
    "help me with this: ", "i need help. ", "pls ", "ok so ", "just curious - ", "question: ", "hi there, ",
]  # fmt: skip
AFTER = [" thanks", " please", " thank you!", " thx", "?", " ?", "??", " asap", ". thanks in advance", " :)", " pls", ""]

# Ways to begin the same question, each going on with the same words.
FRAMES = [
    [
        "how do i ", "how can i ", "how to ", "how would i ", "how should i ", "what is the best way to ", "what's the way to ",
        "is there a way to ", "what are the steps to ", "i want to ", "i need to ", "help me ", "show me how to ",
        "can you explain how to ", "how does one ", "what do i do to ", "how do you ", "how can you ", "how do we ",
    ],
    ["what is the difference between ", "what's the difference between ", "how do you tell apart ", "compare ", "difference between ", "explain the difference between "],
    ["why is it that ", "what is the reason that ", "how come "],
    ["what is ", "what's ", "what exactly is ", "tell me what is ", "whats "],
    ["what are ", "what're ", "which are ", "tell me what are ", "what exactly are "],
    ["what are some ", "what are a few ", "give me some ", "suggest some ", "list some ", "name some ", "can you suggest some ", "recommend some "],
    ["write ", "please write ", "can you write ", "i need you to write ", "compose ", "draft ", "i'd like you to write ", "write me "],
    ["explain ", "please explain ", "can you explain ", "describe ", "give an explanation of ", "i'd like to understand "],
    ["summarize ", "summarise ", "give a summary of ", "sum up ", "please summarize "],
    ["translate ", "please translate ", "can you translate ", "i need a translation of "],
    ["list ", "give me a list of ", "please list ", "make a list of ", "name "],
    ["is it possible to ", "can i ", "can you ", "can one ", "am i able to "],
    ["should i ", "is it a good idea to ", "would it be wise to ", "is it worth it to ", "do you think i should "],
    ["which is the best ", "what is the best ", "what's the best ", "which is the top "],
    ["who is ", "who's ", "tell me who is "],
    ["when did ", "in what year did ", "at what time did "],
    ["how much does it cost to ", "what does it cost to ", "what is the cost to ", "what's the price to "],
    ["how long does it take to ", "how much time does it take to ", "what time is needed to "],
]  # fmt: skip

# One is not the other.
OPPOSITES = [
    tuple(pair.split("="))
    for pair in (
        "increase=decrease|enable=disable|maximum=minimum|before=after|first=last|largest=smallest|oldest=newest|left=right|"
        "import=export|buy=sell|open=close|start=stop|add=remove|with=without|above=below|inside=outside|encode=decode|"
        "upload=download|send=receive|lend=borrow|best=worst|advantages=disadvantages|pros=cons|cheapest=fastest|highest=lowest|"
        "longest=shortest|always=never|any=every|all=only|encrypt=decrypt|install=uninstall|compress=extract|"
        "ascending=descending|vertical=horizontal|north=south|east=west|morning=evening|summer=winter|male=female|husband=wife|"
        "teacher=student|employer=employee|parents=children|more=less|early=late|hot=cold|long=short|black=white|causes=symptoms|"
        "how=why|when=where|who=when|positive=negative|formal=informal|beginner=expert|public=private|row=column|rows=columns|"
        "client=server|daily=weekly|monthly=yearly|today=tomorrow|last=next|was=will be|can=cannot|is=is not|does=does not"
    ).split("|")
]

# Too common to be turned round each time.
COMMON = {"can", "is", "does", "was"}

# One of a kind is not another of it.
CLASSES = [
    words.split()
    for words in (
        "python java javascript ruby go rust php kotlin swift",
        "french spanish german italian japanese korean russian polish dutch arabic",
        "monday tuesday wednesday thursday friday saturday sunday",
        "january february march april june july august september october november december",
        "paris london rome berlin madrid tokyo vienna lisbon prague dublin",
        "france germany italy spain japan canada brazil india mexico poland",
        "dog cat horse rabbit hamster",
        "chicken beef pork fish salmon",
        "red blue green yellow",
        "google amazon microsoft apple netflix facebook",
        "iphone android windows linux macos",
        "json xml yaml csv markdown html",
        "km miles meters feet",
        "kg pounds grams ounces",
        "dollars euros pounds yen",
        "celsius fahrenheit kelvin",
        "poem essay letter story speech",
        "paragraph sentence list table",
        "mysql postgresql sqlite mongodb redis",
        "react vue angular svelte",
        "dad mom brother sister son daughter",
        "coffee tea water milk beer wine",
        "guitar piano violin drums",
        "math physics chemistry biology history",
    )
]


def typo(word, draw):
    """One letter dropped, doubled, swapped or put in."""
    if len(word) < 4 or not word.isalpha():
        return word
    at = draw.randrange(1, len(word) - 1)
    how = draw.randrange(4)
    if how == 0:
        return word[:at] + word[at + 1 :]
    if how == 1:
        return word[:at] + word[at] + word[at:]
    if how == 2:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + draw.choice("aeioustrnl") + word[at + 1 :]


def respelt(text, draw):
    """One word or number in its other spelling."""
    spellings = list(SPELLINGS)
    draw.shuffle(spellings)
    for one, other in spellings:
        if draw.random() < 0.5:
            one, other = other, one
        if not one[0].isalnum() or not one[-1].isalnum():
            continue
        found = re.search(rf"(?<!\w){re.escape(one)}(?!\w)", text, re.I)
        if found:
            text = text[: found.start()] + other + text[found.end() :]
            break
    found = re.search(r"(?<![\w.,:/-])(\d+)(?![\w.,:/%-])", text)
    if found and found.group(1) in NUMERALS:
        text = text[: found.start()] + NUMERALS[found.group(1)] + text[found.end() :]
    return text


def reframed(text, draw):
    """The same question, begun otherwise; and at times without its articles, or with an empty word."""
    lower = text.lower()
    choices = [(frame, begin) for frame in FRAMES for begin in frame if lower.startswith(begin)]
    if choices:
        frame, begin = max(choices, key=lambda choice: len(choice[1]))
        other = draw.choice([other for other in frame if other != begin])
        text = other + text[len(begin) :]
        text = text[:1].upper() + text[1:] if draw.random() < 0.6 else text
    if draw.random() < 0.3:
        text = re.sub(r"\b(the|a|an) ", "", text, count=draw.randrange(1, 3))
    if draw.random() < 0.15:
        text = re.sub(r"^(how|what|why|which|where|when|who)\b", lambda found: found.group() + draw.choice([" exactly", " really", " actually"]), text, count=1, flags=re.I)
    found = re.search(r"^(?P<rest>.{12,}?),? (?P<place>(in|on|for|with|using) [A-Z]\w+)(?P<end>[?.!]?)$", text)
    if found and draw.random() < 0.4:
        rest = found["rest"]
        text = f"{found['place'][:1].upper()}{found['place'][1:]}, {rest[:1].lower()}{rest[1:]}{found['end']}"
    return text


# Two things in an order that says nothing, and in one that says all.
UNORDERED = [
    re.compile(r"\b(?P<before>between )(?P<one>\w[\w.+#-]*)(?P<middle> and )(?P<other>\w[\w.+#-]*)"),
    re.compile(r"(?P<before>)\b(?P<one>\w[\w.+#-]*)(?P<middle> (?:vs\.?|versus|or) )(?P<other>\w[\w.+#-]*)"),
]
ORDERED = [
    re.compile(r"\b(?P<before>from )(?P<one>(?:an? |the |my )?\w[\w.+#-]*(?: \w+)?)(?P<middle> to )(?P<other>(?:an? |the |my )?\w[\w.+#-]*)"),
    re.compile(r"\b(?P<before>convert (?:an? |\d+ )?)(?P<one>\w[\w.+#-]*)(?P<middle> (?:in)?to (?:an? )?)(?P<other>\w[\w.+#-]*)", re.I),
    re.compile(r"(?P<before>)\b(?P<one>\w{4,})(?P<middle> (?:instead of|before|after|better than|faster than|cheaper than) )(?P<other>\w{4,})"),
]


def turned_round(text, patterns):
    """Two things that stand in one of these patterns, in the other order; None where there are none."""
    for pattern in patterns:
        found = pattern.search(text)
        if found and found["one"].lower() != found["other"].lower():
            turned = found["before"] + found["other"] + found["middle"] + found["one"]
            return text[: found.start()] + turned + text[found.end() :]
    return None


def mistyped(text, draw):
    """A typing mistake or two, in long words without capitals, which are no names."""
    words = text.split(" ")
    long = [at for at, word in enumerate(words) if len(word) > 5 and word.isalpha() and word.islower()]
    for at in draw.sample(long, min(len(long), draw.randrange(1, 3))):
        words[at] = typo(words[at], draw)
    return " ".join(words)


def surface(text, draw):
    """The same prompt as somebody else would type it. What may be code or a quotation stays as it is."""
    if any(mark in text for mark in '`\n"') or len(text) > 160:
        return draw.choice(BEFORE) + text if draw.random() < 0.5 else text + draw.choice(AFTER)
    if draw.random() < 0.5:
        text = turned_round(text, UNORDERED) or text
    if draw.random() < 0.5:
        text = reframed(text, draw)
        if draw.random() < 0.5:
            return text
    edits = [
        lambda text: text.lower(),
        lambda text: text.rstrip("?.!"),
        lambda text: draw.choice(BEFORE) + text[:1].lower() + text[1:],
        lambda text: text + draw.choice(AFTER),
        lambda text: mistyped(text, draw),
        lambda text: respelt(text, draw),
    ]
    for edit in draw.sample(edits, draw.randrange(1, 4)):
        text = edit(text)
    return text


def other_number(text, draw):
    numbers = list(re.finditer(r"\d+", text))
    if not numbers:
        return None
    found = draw.choice(numbers)
    digits = found.group()
    for _ in range(5):
        if draw.random() < 0.5:
            at = draw.randrange(len(digits))
            other = digits[:at] + draw.choice("123456789") + digits[at + 1 :]
        elif len(digits) < 9:
            other = str(max(1, int(digits) + draw.choice([-2, -1, 1, 2, 5, 10])))
        else:
            other = digits[:-1]
        if other != digits:
            return text[: found.start()] + other + text[found.end() :]
    return None


def exchanged(text, choices, draw):
    """One of the choices (match, other word) made; the other word begins as the first did."""
    if not choices:
        return None
    found, other = draw.choice(choices)
    other = other.capitalize() if found.group()[:1].isupper() else other
    return text[: found.start()] + other + text[found.end() :]


def opposite(text, draw):
    choices = []
    for pair in OPPOSITES:
        for one, other in (pair, pair[::-1]):
            found = re.search(rf"\b{one}\b", text, re.I)
            if found and not (one in COMMON and draw.random() < 0.7):
                choices.append((found, other))
    return exchanged(text, choices, draw)


def other_member(text, draw):
    choices = []
    for words in CLASSES:
        for word in words:
            found = re.search(rf"\b{word}\b", text, re.I)
            if found:
                choices.append((found, draw.choice([other for other in words if other != word])))
    return exchanged(text, choices, draw)


def decisive(text, draw):
    """The prompt with two things in the other order, another number, the opposite of a word, or another member of its class;
    None where there is nothing to change."""
    if draw.random() < 0.6:
        turned = turned_round(text, ORDERED)
        if turned is not None:
            return turned
    edits = [other_number, opposite, other_member]
    draw.shuffle(edits)
    for edit in edits:
        edited = edit(text, draw)
        if edited is not None:
            return edited
    return None
