"""Texts with personal data or secrets, and texts that only look like it; tests and bench/pii.py judge detectors on them.

Every key and card number is put together when the tests run, and none was ever valid: no scanner that looks
for secrets finds one in this file.
"""

import base64
import hashlib
import string
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PiiCase:
    """A text, what kind of value stands in it ("" for none), and the value itself."""

    text: str
    kind: str = ""
    value: str = ""


def _letters(seed: str, length: int, alphabet: str) -> str:
    """Return letters that look random and are the same each time."""
    drawn, block = "", seed.encode()
    while len(drawn) < length:
        block = hashlib.sha256(block).digest()
        drawn += "".join(alphabet[byte % len(alphabet)] for byte in block)
    return drawn[:length]


_MIXED = string.ascii_letters + string.digits
_UPPER = string.ascii_uppercase + string.digits


def card(prefix: str, length: int = 16) -> str:
    """Return a number of this prefix and length whose Luhn check digit is right."""
    body = prefix + _letters(prefix, length - len(prefix) - 1, string.digits)
    total = 0
    for place, digit in enumerate(reversed(body)):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return body + str(-total % 10)


def _wrong(number: str) -> str:
    """Return the number with another check digit."""
    return number[:-1] + str((int(number[-1]) + 3) % 10)


def _groups(number: str, mark: str = " ") -> str:
    return mark.join(number[i : i + 4] for i in range(0, len(number), 4))


def iban(country: str, account: str) -> str:
    """Return the IBAN of an account, its check digits right."""
    digits = "".join(str(int(c, 36)) for c in account + country + "00")
    return f"{country}{98 - int(digits) % 97:02d}{account}"


def _jwt() -> str:
    def part(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    return ".".join((part('{"alg":"HS256","typ":"JWT"}'), part('{"sub":"1234567890"}'), _letters("jwt", 43, _MIXED)))


def keys() -> dict[str, str]:
    """Return one key for each well-known format, by its name."""
    return {
        "aws": "AK" + "IA" + _letters("aws", 16, _UPPER),
        "github": "gh" + "p_" + _letters("gh", 36, _MIXED),
        "github_fine": "github" + "_pat_" + _letters("f", 22, _MIXED) + "_" + _letters("g", 59, _MIXED),
        "gitlab": "gl" + "pat-" + _letters("gl", 20, _MIXED),
        "slack": "xo" + "xb-" + _letters("s", 12, string.digits) + "-" + _letters("sl", 24, _MIXED),
        "stripe": "sk" + "_live_" + _letters("st", 24, _MIXED),
        "openai": "sk" + "-" + _letters("o", 20, _MIXED) + "T3Blbk" + "FJ" + _letters("p", 20, _MIXED),
        "openai_project": "sk" + "-proj-" + _letters("oa", 64, _MIXED),
        "anthropic": "sk" + "-ant-api03-" + _letters("an", 93, _MIXED) + "AA",
        "huggingface": "h" + "f_" + _letters("hf", 34, string.ascii_letters),
        "google": "AI" + "za" + _letters("goog", 35, _MIXED),
        "sendgrid": "S" + "G." + _letters("sg", 22, _MIXED) + "." + _letters("sgg", 43, _MIXED),
        "jwt": _jwt(),
        "pypi": "py" + "pi-AgEIcHlwaS5vcmc" + _letters("py", 80, _MIXED),
        "npm": "np" + "m_" + _letters("np", 36, _MIXED),
        "private_key": "-----BEGIN " + "RSA PRIVATE KEY-----",
    }


def positives() -> list[PiiCase]:
    """Return texts with one value each that has to be found."""
    mails = [
        ("Write to {} for a refund.", "jane.doe@example.com"),
        ("The clerk's address is {}.", "j.o-brien+claims@mail.example.co.uk"),
        ("Contact: <{}>", "info@münchen-beispiel.de"),
        ("mailto:{}?subject=Hello", "support_desk@example.org"),
        ("Who owns {}?", "A1@example.museum"),
        ("(e-mail {})", "first.last@sub.domain.example.io"),
        ('Answer: "{}"', "x@example.info"),
        ("Ask 李雷 at {}。", "li.lei@example.cn"),
    ]
    cards = [
        ("Pay with {} before Friday.", card("4539")),
        ("The card {} was declined.", _groups(card("4916"))),
        ("Number: {}", _groups(card("5412"), "-")),
        ("His American Express is {}.", card("3782", 15)),
        ("{} expires in May.", card("6011")),
        ("It was {}, she said.", _groups(card("2221"))),
        ("VISA {}.", card("4024")),
        ("JCB card {}", card("3530")),
    ]
    phones = [
        ("Call {} at night.", "+44 20 7946 0958"),
        ("Her mobile is {}.", "+1 415-555-0132"),
        ("Phone: {}", "(212) 555-0187"),
        ("Ring {} for the desk.", "+49 30 901820"),
        ("Dial {}.", "+33 1 70 18 99 00"),
        ("Tel. {}", "415-555-0164"),
        ("Her number is {}.", "+14155550132"),
        ("Fax {}", "+81 3-1234-5678"),
    ]
    ibans = [
        ("Transfer to {}.", iban("DE", "370400440532013000")),
        ("IBAN {}", _groups(iban("GB", "NWBK60161331926819"))),
        ("Account {} is hers.", iban("FR", "20041010050500013M02606")),
        ("Konto: {}", _groups(iban("NL", "ABNA0417164300"))),
    ]
    addresses = [
        ("The printer answers at {}.", "192.168.17.44"),
        ("Log: {} was refused.", "203.0.113.77"),
        ("Host {} is down.", "2001:db8:85a3::8a2e:370:7334"),
        ("Ping {}", "fe80::1ff:fe23:4567:890a"),
    ]
    named = {"email": mails, "card": cards, "phone": phones, "iban": ibans, "ip": addresses}
    found = [PiiCase(text.format(value), kind, value) for kind, rows in named.items() for text, value in rows]
    frames = ("Use {} as the key.", 'api_key = "{}"', "The token {} was revoked.", "What does {} open?")
    found += [PiiCase(frames[i % 4].format(key), "secret", key) for i, key in enumerate(keys().values())]
    found.append(PiiCase("Clone https://bob:hunter2x@git.example.com/a.git first.", "secret", "hunter2x"))
    return found


def negatives() -> list[PiiCase]:
    """Return texts in which nothing may be found."""
    texts = [
        "Order number 4500123456 ships in two days.",
        f"The order {_wrong(card('4539'))} is on its way.",
        f"Serial number {_groups(_wrong(card('5412')))} stands on the base.",
        "Part no. 7312-4455-0091 fits the K200.",
        "The product code is BRV-2024-11-0087.",
        "Model WX-4400/12B holds 1.7 litres.",
        "Version 2.17.0.4 fixes the pump.",
        "Update to firmware 10.4.2.118 first.",
        "Release 1.2.3.4 came out in March.",
        "The build is v3.0.12-rc.1+build.4471.",
        "On 2024-11-21 at 17:36:38 the alarm rang.",
        "Between 01/02/2023 and 31/12/2024 the rate was 4.5 %.",
        "From 1998-2004 the office was closed.",
        "ISBN 978-3-16-148410-0 is the handbook.",
        "The ISBN is 9783161484100.",
        "EAN 4006381333931 is on the box.",
        "The parcel 1Z999AA10123456784 is in Leeds.",
        "See RFC 2119, section 10.4.15.",
        "Clause 12.3.4.5 of the contract holds.",
        "The id is 550e8400-e29b-41d4-a716-446655440000.",
        "The checksum is d41d8cd98f00b204e9800998ecf8427e.",
        "Commit 9fceb02d0ae598e95dc970b74767f19372d61af8 broke it.",
        "sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 is empty.",
        "Press Ctrl+Alt+Del @ the login screen.",
        "Meet @maintainer on the forum.",
        "Use the decorator @app.route to add a page.",
        "The fee is 1 250 000.00 pounds a year.",
        "Population: 1,411,778,724 in 2020.",
        "Pi is 3.14159265358979323846.",
        "Set the valve to 12:34:56 on the dial.",
        "The ratio 16:9:4:3 is odd.",
        "Room 415-555 is on floor 4.",
        "Coordinates 51.507351, -0.127758 are in London.",
        "The file is /var/log/app-2024.11.21.log.",
        "Chapter 10.0.0 covers sizes.",
        "The key to success is patience, said the teacher.",
        "Your password must have eight characters.",
        "The secret ingredient is cinnamon.",
        "What is the API key used for?",
        "Keep the token in a safe place.",
        "A sk-learn pipeline needs two steps.",
        "The task-force met at noon.",
        "The std::vector::push_back call copies.",
        "Use std::map or a::b::c to nest.",
        "The unix time 1700000000 is in 2023.",
        "In microseconds: 1700000000123456.",
        "Article 1234567890123 weighs 2 kg.",
        "Invoice 2024-000123-45 is due.",
        "The VAT number GB999 9999 73 is printed below.",
        "Batch DE12 3456 is recalled.",
        "It costs 40 pounds, or 45.50 with a plug.",
        "Bolt M8 x 1.25 x 40, torque 25 Nm.",
        "5G, 802.11ac and Bluetooth 5.3 are built in.",
        "Call us at noon; we close at 18.30.",
        "The sum 4111 + 1111 + 1111 + 1111 is 7444.",
        "MAC addresses such as 00:1B:44:11:3A:B7 are printed inside.",
    ]
    return [PiiCase(text) for text in texts]
