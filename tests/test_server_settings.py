"""What a station is told: names of models, watched folders, tokens; and what it refuses to be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from spadework.errors import InputError

pytest.importorskip("fastapi")
from spadework.server.settings import (
    Settings,
    Token,
    WatchedFolder,
    find_tokens,
    is_loopback,
    name_models,
    read_watches,
)

ANN = Token("ann", "manage", "a-token-that-is-long-enough")


def settings(**changes) -> Settings:
    return Settings(**{"models": {"part": Path("part.spade")}, "folder": Path("station"), **changes})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.7.7", "::"])
def test_another_address_than_loopback_needs_tokens(host):
    with pytest.raises(InputError, match=r"--host .* needs tokens.*--token-file.*SPADEWORK_TOKENS"):
        settings(host=host)
    assert settings(host=host, tokens=(ANN,)).host == host


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.3.2.1"])
def test_loopback_needs_none(host):
    assert settings(host=host).tokens == ()


def test_a_name_that_does_not_exist_is_named():
    with pytest.raises(InputError, match="--host nowhere.invalid: no such address"):
        is_loopback("nowhere.invalid")


def test_a_proxy_needs_tokens():
    with pytest.raises(InputError, match="--allow-host station.example is for a station behind a proxy"):
        settings(hosts=("station.example",))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue", 0),
        ("max_upload", 0),
        ("max_pixels", -1),
        ("rate", 0.0),
        ("rate", float("nan")),
        ("keep_days", 0),
        ("port", 70000),
    ],
)
def test_numbers_that_make_no_sense_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        settings(**{name: value})


def test_models_are_named_after_their_folders():
    assert name_models([Path("a/left.spade"), Path("right")]) == {"left": Path("a/left.spade"), "right": Path("right")}
    with pytest.raises(InputError, match="would both be called 'left'"):
        name_models([Path("a/left.spade"), Path("b/left.spade")])
    with pytest.raises(InputError, match="needs a name of letters"):
        settings(models=name_models([Path("left part.spade")]))
    with pytest.raises(InputError, match="a station needs a model"):
        settings(models={})


def test_watched_folders(tmp_path):
    one, two = {"left": Path("left.spade")}, {"left": Path("left.spade"), "right": Path("right.spade")}
    assert read_watches(["in"], one) == (WatchedFolder("left", Path("in")),)
    assert read_watches(["right=in"], two) == (WatchedFolder("right", Path("in")),)
    assert read_watches(["odd=name"], one) == (WatchedFolder("left", Path("odd=name")),)
    with pytest.raises(InputError, match="say for which model, e.g. --watch left=in"):
        read_watches(["in"], two)
    with pytest.raises(InputError, match="is no folder"):
        settings(watches=(WatchedFolder("part", tmp_path / "absent"),))
    with pytest.raises(InputError, match="no model 'other'; there are part"):
        settings(watches=(WatchedFolder("other", tmp_path),))


def test_tokens_come_from_a_file_and_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "tokens"
    file.write_text("# who\n\nann:manage:a-token-that-is-long-enough\n line:inspect:another:with:colons:in:it\n")
    monkeypatch.setenv("SPADEWORK_TOKENS", "eve:decide:token-of-the-environment\n")
    assert find_tokens(file) == (
        ANN,
        Token("line", "inspect", "another:with:colons:in:it"),
        Token("eve", "decide", "token-of-the-environment"),
    )
    assert find_tokens(None)[0].name == "eve"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SECRET-that-is-a-line-of-its-own", "line 1: must be NAME:ROLE:TOKEN"),
        ("# a\nann:boss:SECRET-long-enough", "line 2: the role must be one of inspect, decide, manage"),
        ("ann:manage:SECRET", "at least 16"),
        ("ann:manage:SECRET with some spaces", "no space"),
        ("an n:manage:SECRET-long-enough", "the name must be"),
        ("ann:manage:SECRET-long-enough\nann:decide:SECRET-other-enough", "two names are the same"),
        ("ann:manage:SECRET-long-enough\nbob:decide:SECRET-long-enough", "two tokens are the same"),
        ("# nothing\n", "holds no token"),
    ],
)
def test_bad_tokens_are_refused_and_never_shown(tmp_path, monkeypatch, text, message):
    monkeypatch.delenv("SPADEWORK_TOKENS", raising=False)
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        find_tokens(file)
    assert "SECRET" not in str(caught.value)


def test_a_token_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"--token-file .*absent: cannot be read: No such file"):
        find_tokens(tmp_path / "absent")


def test_settings_do_not_show_tokens():
    assert ANN.secret not in repr(settings(tokens=(ANN,)))


def test_the_database_lies_in_the_folder_unless_told(tmp_path):
    assert settings(folder=tmp_path).database_url == f"sqlite:///{tmp_path / 'history.sqlite'}"
    assert settings(database="postgresql://h/n").database_url == "postgresql://h/n"
