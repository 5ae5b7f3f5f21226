"""Recovery keys: every slip is told on the line where it was made."""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from chatkeep.daemon.keys import recovery
from chatkeep.daemon.keys.errors import RecoveryTypo, SecretWiped
from chatkeep.daemon.keys.recovery import RecoveryKey


def key_of(seed: int) -> RecoveryKey:
    digits = random.Random(seed).choices(b"0123456789", k=56)
    return RecoveryKey(bytearray(digits))


def typo(text: str) -> tuple[int, str]:
    with pytest.raises(RecoveryTypo) as caught:
        recovery.parse(text)
    return caught.value.line, caught.value.reason


def accepted(line: int, text: str) -> bool:
    try:
        RecoveryKey.check_line(line, text)
    except RecoveryTypo:
        return False
    return True


def by_the_table(line: int, digits: str) -> int:
    """The check digit out of the format page itself."""
    page = (Path(__file__).parents[3] / "docs" / "format.md").read_text("utf-8")
    block = page.split("Damm's thesis")[1].split("```")[1]
    table = [[int(digit) for digit in row.split()] for row in block.replace("/", "\n").strip().splitlines()]
    assert [len(row) for row in table] == [10] * 10
    interim = 0
    for digit in [line, *map(int, digits)]:
        interim = table[interim][digit]
    return interim


def test_check_digits_are_those_of_the_format_page(seed: int) -> None:
    for number, line in enumerate(key_of(seed).lines, start=1):
        digits = line.replace(" ", "")
        assert by_the_table(number, digits[:7]) == int(digits[7])


def test_round_trip(seed: int) -> None:
    key = key_of(seed)
    assert len(key.lines) == 8
    assert all(len(line) == 9 and line[4] == " " for line in key.lines)
    assert recovery.parse("\n".join(key.lines)).secret() == key.secret()
    for number, line in enumerate(key.lines, start=1):
        assert RecoveryKey.check_line(number, line) == line


@pytest.mark.parametrize(
    "layout",
    [
        lambda lines: "\n".join(lines),
        lambda lines: "\r\n".join(lines) + "\r\n",
        lambda lines: "\n\n  \n".join(lines) + "\n\n",
        lambda lines: " ".join(lines),
        lambda lines: "".join(lines).replace(" ", ""),
        lambda lines: "\n".join(lines).replace(" ", "-"),
        lambda lines: "\n".join(lines).replace(" ", "\u2013"),
        lambda lines: "\n".join(lines).replace(" ", "\u00a0"),
        lambda lines: "\n".join("\t" + "  ".join(line) for line in lines),
        lambda lines: "\n".join(f"{lines[i]} {lines[i + 1]}" for i in range(0, 8, 2)),
    ],
)
def test_layout_means_nothing(layout: Callable[[tuple[str, ...]], str], seed: int) -> None:
    key = key_of(seed)
    assert recovery.parse(layout(key.lines)).secret() == key.secret()


def test_every_single_wrong_digit_is_noticed(seed: int) -> None:
    for number, line in enumerate(key_of(seed).lines, start=1):
        digits = line.replace(" ", "")
        for position in range(8):
            for digit in "0123456789":
                changed = digits[:position] + digit + digits[position + 1 :]
                assert accepted(number, changed) is (digit == digits[position])


def test_every_swap_of_neighbours_is_noticed() -> None:
    # Exhaustive over both digits, at every position, with what stands before them chosen at random.
    choose = random.Random(5)
    tried = 0
    for position, a, b in itertools.product(range(6), range(10), range(10)):
        rest = [choose.randrange(10) for _ in range(7)]
        rest[position : position + 2] = [a, b]
        for number in range(1, 9):
            line = "".join(map(str, rest))
            line += str(by_hand(number, line))
            swapped = line[:position] + line[position + 1] + line[position] + line[position + 2 :]
            assert accepted(number, swapped) is (a == b)
            tried += 1
    assert tried == 4800


def by_hand(number: int, seven: str) -> int:
    return next(d for d in range(10) if accepted(number, seven + str(d)))


def test_swap_with_the_check_digit_is_noticed(seed: int) -> None:
    for number, line in enumerate(key_of(seed).lines, start=1):
        digits = line.replace(" ", "")
        assert accepted(number, digits[:6] + digits[7] + digits[6]) is (digits[6] == digits[7])


def test_every_swap_of_lines_is_noticed(seed: int) -> None:
    lines = key_of(seed).lines
    for a, b in itertools.combinations(range(8), 2):
        swapped = list(lines)
        swapped[a], swapped[b] = swapped[b], swapped[a]
        assert typo("\n".join(swapped)) == (a + 1, "check-digit")


def test_no_line_passes_as_another(seed: int) -> None:
    for number, line in enumerate(key_of(seed).lines, start=1):
        assert [n for n in range(1, 9) if accepted(n, line)] == [number]


@pytest.mark.parametrize("digit", ["\u00b2", "\u0663", "\uff19", "\u2460", "\U0001d7d7"])
def test_digits_of_other_scripts_are_no_digits(digit: str) -> None:
    assert digit.isdigit() or digit.isnumeric()
    text = "\n".join(key_of(1).lines)
    assert typo(text[:12] + digit + text[13:]) == (2, "not-a-digit")
    with pytest.raises(RecoveryTypo) as caught:
        RecoveryKey.check_line(2, "12" + digit)
    assert caught.value.params["column"] == 3


@pytest.mark.parametrize("character", ["x", "O", "l", ".", "_", "+", "\0"])
def test_anything_else_is_no_digit(character: str) -> None:
    assert typo("\n".join(key_of(1).lines) + character) == (8, "not-a-digit")


def test_wrong_lengths_are_told_on_their_line() -> None:
    lines = list(key_of(2).lines)
    assert typo("\n".join([*lines[:3], lines[3][:-1], *lines[4:]])) == (4, "length")
    assert typo("\n".join([*lines[:3], lines[3] + "0", *lines[4:]])) == (4, "length")
    assert typo("\n".join(lines[:7])) == (8, "too-few-lines")
    assert typo("\n".join([*lines, lines[0]])) == (9, "too-many-lines")
    assert typo("") == (1, "too-few-lines")
    assert typo(" \n -\n") == (1, "too-few-lines")
    assert typo(" ".join(lines)[:-1]) == (8, "length")
    for text in ("1", "1234 567", "1234 5678 9", ""):
        with pytest.raises(RecoveryTypo) as caught:
            RecoveryKey.check_line(1, text)
        assert caught.value.reason == "length"


def test_first_slip_is_the_one_told() -> None:
    lines = list(key_of(3).lines)
    lines[1] = str((int(lines[1][0]) + 1) % 10) + lines[1][1:]
    lines[5] += "0"
    assert typo("\n".join(lines)) == (2, "check-digit")


def test_errors_do_not_carry_what_was_typed() -> None:
    lines = list(key_of(4).lines)
    lines[0] = lines[0][:-1] + str((int(lines[0][-1]) + 1) % 10)
    with pytest.raises(RecoveryTypo) as caught:
        recovery.parse("\n".join(lines))
    assert caught.value.params == {"line": 1, "reason": "check-digit"}


def test_generated_keys_use_every_digit_alike() -> None:
    counts = [0] * 10
    for _ in range(200):
        for digit in recovery.generate().secret():
            counts[digit - ord("0")] += 1
    # 11,200 digits: 1,120 each, standard deviation 32. Seven of them: a fair generator fails once in 10^11 runs.
    assert all(abs(count - 1120) < 7 * 32 for count in counts)


def test_generated_keys_differ_and_read_back() -> None:
    one, other = recovery.generate(), recovery.generate()
    assert one.secret() != other.secret()
    assert recovery.parse("\n".join(one.lines)).secret() == one.secret()


def test_bytes_left_out_by_the_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = iter(bytes([255, 250, 249, 0, 10] + [7] * 56))
    monkeypatch.setattr(os, "urandom", lambda size: bytes(next(drawn) for _ in range(size)))
    assert recovery.generate().secret().startswith(b"9007")


def test_wiped_key_shows_nothing() -> None:
    key = key_of(6)
    key.wipe()
    for use in (lambda: key.lines, key.secret):
        with pytest.raises(SecretWiped):
            use()
    assert repr(key) == "<RecoveryKey>"
