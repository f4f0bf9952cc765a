"""`weft methods`: the list, and the paper's counts."""

from __future__ import annotations

from typing import Any

import pytest

from shared.methods import METHODS


@pytest.mark.parametrize(
    ("architecture", "count"),
    [
        ("vgg_small", 7413),
        ("vgg_medium", 14672),
        ("mobilenet_v2", 122632),
        ("resnet18", 122973),
        ("resnet50", 310656),
    ],
)
def test_count_is_the_papers(weft: Any, architecture: str, count: int) -> None:
    done = weft("methods", "count", architecture, "ka", "--rank", 3)
    assert (done.status, done.out) == (0, f"{count}\n")


def test_count_as_json_names_what_was_counted(weft: Any) -> None:
    done = weft("methods", "count", "vgg_small", "ka", "--rank", 3, "--json")
    assert done.json == {
        "architecture": "vgg_small",
        "arguments": {},
        "method": "ka",
        "options": {"rank": 3},
        "count": 7413,
        "parameters": 136266,
    }


def test_lossless_method_counts_every_parameter(weft: Any) -> None:
    assert weft("methods", "count", "vgg_tiny", "full").out == "26554\n"


def test_count_follows_the_architectures_arguments(weft: Any) -> None:
    five = weft("methods", "count", "vgg_tiny", "full", "--argument", "classes=5")
    assert five.out == f"{26554 - 5 * 65}\n"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["vgg_small", "ka"], "method.bad_option"),
        (["vgg_small", "ka", "--rank", "3", "--proportion", "0.1"], "method.bad_option"),
        (["vgg_small", "magic"], "method.unknown"),
        (["vgg_huge", "full"], "model.unknown_architecture"),
        (["vgg_small", "full", "--argument", "classes"], "command.invalid"),
    ],
)
def test_mistakes_are_told_with_a_code(weft: Any, words: list[str], code: str) -> None:
    done = weft("methods", "count", *words, "--json")
    assert (done.status, done.out, done.code) == (1, "", code)


def test_list_names_every_method(weft: Any) -> None:
    plain, listed = weft("methods", "list"), weft("methods", "list", "--json")
    assert [item["id"] for item in listed.json["items"]] == list(METHODS)
    assert [line.split()[0] for line in plain.out.splitlines()[1:]] == list(METHODS)
    assert listed.json["items"][0]["options"]["rank"]["required"]


@pytest.mark.parametrize("words", [["nonsense"], ["methods", "count", "vgg_small"], ["--what"]])
def test_wrong_command_line_is_the_users_fault(weft: Any, words: list[str]) -> None:
    done = weft(*words)
    assert (done.status, done.out) == (1, "")
    assert "Traceback" not in done.err
