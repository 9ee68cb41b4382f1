"""Random measures, times, prices and addresses, written as handbooks write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lexicon import name, pseudo_word, words

if TYPE_CHECKING:
    from random import Random

DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = words("months")
NUMBER_WORDS = words("number_words")
TIME_UNITS = ["seconds", "minutes", "hours", "days", "weeks", "months", "years"]
HEDGES = ["about", "up to", "at least", "around", "roughly", "no more than", "almost", "just under", "over"]


def number(rng: Random, low: int = 2, high: int = 60) -> str:
    """A count in digits, or in words when small."""
    if rng.random() < 0.02:
        return f"{rng.randint(1, 9)},{rng.randint(0, 9)}00"
    if rng.random() < 0.45:
        return rng.choice([word for i, word in enumerate(NUMBER_WORDS, 2) if i <= max(high, 4)][:14])
    return str(rng.randint(low, high))


def _amount(rng: Random) -> str:
    draw = rng.random()
    if draw < 0.5:
        return str(rng.randint(2, 99))
    if draw < 0.7:
        return f"{rng.randint(0, 30)}.{rng.randint(1, 9)}"
    if draw < 0.85:
        return str(rng.choice([100, 120, 150, 180, 200, 250, 300, 400, 450, 500, 600, 750, 800, 900]))
    if draw < 0.93:
        return f"{rng.randint(1, 30)},{rng.randint(0, 9)}00"
    return rng.choice(NUMBER_WORDS)


def _hedged(rng: Random, text: str, share: float = 0.12) -> str:
    return f"{rng.choice(HEDGES)} {text}" if rng.random() < share else text


def quantity(rng: Random, units: str) -> str:
    """An amount with one of the blank-divided `units`; `_` in a unit stands for a blank."""
    unit = rng.choice(units.split()).replace("_", " ")
    if rng.random() < 0.05:
        return f"{rng.randint(2, 40)}{rng.choice([' or ', ' to ', ', 45 or '])}{rng.randint(41, 900)} {unit}"
    return _hedged(rng, f"{_amount(rng)} {unit}")


def mass(rng: Random) -> str:
    """A mass."""
    return quantity(rng, "kilograms kilograms grams kg g pounds tonnes")


def length(rng: Random) -> str:
    """A length."""
    return quantity(rng, "centimetres centimetres metres millimetres cm mm m inches kilometres")


def volume(rng: Random) -> str:
    """A volume."""
    return quantity(rng, "litres litres millilitres ml cups spoonfuls cubic_metres")


def power(rng: Random) -> str:
    """An electrical rating."""
    return quantity(rng, "watts watts kilowatts volts amps kilowatt_hours W")


def any_quantity(rng: Random) -> str:
    """A measure of any kind, now and then with an invented unit."""
    if rng.random() < 0.05:
        return f"{_amount(rng)} {pseudo_word(rng, 1)}s"
    if rng.random() < 0.12:
        return percent(rng)
    return quantity(
        rng,
        "bar litres grams percent decibels lumens hertz megabytes gigabytes pages cups metres_per_second degrees "
        "kilometres_per_hour newton_metres watts millimetres litres_per_minute turns_per_minute drops spoons",
    )


def dimensions(rng: Random) -> str:
    """Two or three side lengths."""
    sides = [str(rng.randint(5, 220)) for _ in range(rng.choice([2, 3]))]
    return rng.choice([" by ", " x "]).join(sides) + rng.choice([" centimetres", " cm", " millimetres", " metres"])


def percent(rng: Random) -> str:
    """A percentage."""
    return f"{rng.randint(1, 100)}{rng.choice(['%', ' percent', ' per cent'])}"


def temperature(rng: Random) -> str:
    """A temperature in degrees."""
    sign = rng.choice(["", "", "", "", "-", "minus "])
    return f"{sign}{rng.randint(2, 250)}{rng.choice([' degrees', ' degrees', ' °C', ' degrees Celsius'])}"


def price(rng: Random) -> str:
    """A price in one of several currencies."""
    amount = rng.choice([str(rng.randint(2, 400)), f"{rng.randint(1, 90)}.{rng.choice(['50', '90', '95', '25'])}"])
    return rng.choice([f"${amount}", f"€{amount}", f"£{amount}", f"{amount} euros", f"{amount} euros",
                       f"{amount} dollars", f"{amount} pounds", f"{amount} crowns"])  # fmt: skip


def duration(rng: Random) -> str:
    """A length of time."""
    if rng.random() < 0.1:
        return rng.choice(["half an hour", "an hour", "one hour", "one minute", "a day", "one day", "one week",
                           "a month", "one year", "half a day", "two and a half hours", "a few seconds",
                           "one night", "one month", "a year", "three hours and ten minutes",
                           "an hour and a half", "one hour and 20 minutes"])  # fmt: skip
    count = number(rng, 2, rng.choice([12, 30, 90]))
    unit = rng.choice(TIME_UNITS)
    text = f"{count} {rng.choice(['working ', 'business ']) if unit == 'days' and rng.random() < 0.3 else ''}{unit}"
    if rng.random() < 0.06:
        text = f"{rng.randint(2, 9)} to {rng.randint(10, 30)} {unit}"
    return _hedged(rng, text)


def adjective_duration(rng: Random) -> str:
    """`two-year`, `30-day`: a duration before a noun."""
    return f"{number(rng)}-{rng.choice(TIME_UNITS)[:-1]}"


def frequency(rng: Random) -> str:
    """How often something is done."""
    draw = rng.random()
    if draw < 0.4:
        unit = rng.choice([*TIME_UNITS[2:], "uses", "cycles", "kilometres", "washes", "hours of use"])
        return f"every {number(rng, 2, 30)} {unit}"
    if draw < 0.65:
        times = rng.choice(["once", "twice", "three times", "four times", "at least once"])
        return (
            f"{times} {rng.choice(['a', 'a', 'per', 'every'])} {rng.choice(['day', 'week', 'month', 'year', 'season'])}"
        )
    return rng.choice([
        "every day", "every week", "every month", "every year", "every spring", "every morning", "every other week",
        "after each use", "after every use", "before each use", "after every wash", "weekly", "monthly", "once a year",
        f"every {rng.choice(DAYS)}", "every winter", "every evening", "daily", "every few months", "after every trip",
    ])  # fmt: skip


def clock(rng: Random) -> str:
    """A time of day."""
    hour, minute = rng.randint(1, 12), rng.choice(["00", "15", "30", "45"])
    return rng.choice([f"{hour} {rng.choice(['am', 'pm'])}", f"{rng.randint(6, 22)}:{minute}", f"{hour}:{minute} pm",
                       f"{hour}:{minute} am", "noon", f"{hour} o'clock", f"{hour} in the evening", "midnight",
                       str(hour), f"half past {NUMBER_WORDS[hour % 9]}", NUMBER_WORDS[hour % 9],
                       f"{rng.randint(7, 22)}:{minute}"])  # fmt: skip


def date(rng: Random) -> str:
    """A date without its year."""
    return rng.choice([f"{rng.randint(1, 30)} {rng.choice(MONTHS)}", rng.choice(MONTHS),
                       f"{rng.choice(MONTHS)} {rng.randint(1, 30)}"])  # fmt: skip


def day_phrase(rng: Random) -> str:
    """A day or season with its preposition."""
    one, other = rng.sample(DAYS, 2)
    return rng.choice([f"on {one}s", f"on {one}", f"on {one}s and {other}s", "on public holidays", "at weekends",
                       f"in {rng.choice(MONTHS)}", "on Sundays and holidays", f"every {one}", "in winter",
                       f"from {rng.choice(MONTHS)} to {rng.choice(MONTHS)}"])  # fmt: skip


def when(rng: Random) -> str:
    """An adverbial of time."""
    return rng.choice([
        day_phrase, day_phrase, lambda r: f"at {clock(r)}", lambda r: f"before {clock(r)}",
        lambda r: f"in {r.choice(MONTHS)}", lambda r: f"within {duration(r)}",
        lambda r: f"after {duration(r)}", lambda r: f"until {clock(r)}", lambda r: f"between {clock(r)} and {clock(r)}",
        lambda r: r.choice(words("times")),
        lambda r: f"from {r.choice(MONTHS)} to {r.choice(MONTHS)}",
        lambda r: f"on {r.randint(1, 30)} {r.choice(MONTHS)}",
    ])(rng)  # fmt: skip


def span(rng: Random) -> str:
    """Opening times: `from 9 to 5`, `Monday to Friday from 8:30 to 17:00`."""
    hours = f"from {clock(rng)} {rng.choice(['to', 'until'])} {clock(rng)}"
    one, other = rng.sample(DAYS, 2)
    return rng.choice([hours, f"{hours} on {one}s", f"{one} to {other}", f"from {one} to {other}", "around the clock",
                       f"{one} to {other}, {hours}", "every day except Sunday", "seven days a week"])  # fmt: skip


def address(rng: Random) -> str:
    """A street address."""
    return f"{rng.randint(1, 199)} {name(rng)} {rng.choice(['Street', 'Road', 'Lane', 'Square', 'Avenue', 'Way'])}"


def phone(rng: Random) -> str:
    """A telephone number."""
    blocks = [str(rng.randint(10, 9999)) for _ in range(rng.choice([1, 2, 2, 3]))]
    return rng.choice(["0", "+", "555-", ""]) + rng.choice([" ", "-", "-"]).join(blocks)


def email(rng: Random) -> str:
    """An e-mail address."""
    box = rng.choice(["help", "service", "info", "repairs", "orders", "support", "returns", "hello", "parts"])
    return f"{box}@{name(rng).lower()}.{rng.choice(['example', 'com', 'org', 'example.com', 'net'])}"
