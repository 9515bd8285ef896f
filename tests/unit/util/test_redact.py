"""What is printed or kept has no secret of an address, a connection string or the environment."""

from pathlib import Path

import pytest

from lethe._util.redact import clean, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at https://me:geheim@host/a", "at https://host/a"),
        ("at https://me:ge/heim@host/a", "at https://host/a"),
        ("https://host/a?token=geheim&x=1#b", "https://host/a?token=***&x=1#b"),
        ("https://host/a?x=1&X-Amz-Signature=geheim", "https://host/a?x=1&X-Amz-Signature=***"),
        ("postgresql://host/db?sslmode=verify-full&sslpassword=geheim", "postgresql://host/db?sslmode=verify-full&sslpassword=***"),
        ("host=h password=geheim dbname=d", "host=h password=*** dbname=d"),
        ("https://host/a?access_token=geheim;b", "https://host/a?access_token=***;b"),
        ("the token of the run: 3", "the token of the run: 3"),
        ("optimizer=sgd, tokens", "optimizer=sgd, tokens"),
    ],
)
def test_a_text_without_its_secrets(text: str, shown: str) -> None:
    assert clean(text) == shown


def test_the_environments_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "wandb_api_key", "MY_PASSWORD"):
        monkeypatch.setenv(name, "gar geheim")
        assert clean("it answers: gar geheim is wrong") == "it answers: *** is wrong", name
        monkeypatch.delenv(name)
    monkeypatch.setenv("MY_TOKEN", "word")  # a text may have such a word of its own
    monkeypatch.setenv("HOME_PAGE", "gar geheim")
    assert clean("a word, gar geheim") == "a word, gar geheim"


def test_a_folder_that_the_environment_names_is_no_secret(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MY_TOKEN_FOLDER", str(tmp_path))
    assert clean(f"sqlite:///{tmp_path}/mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MY_TOKEN_FOLDER", "/x7Kq+base64/secret")
    assert clean("it takes no /x7Kq+base64/secret") == "it takes no ***"


def test_an_address_that_is_kept_has_no_query() -> None:
    assert without_secrets("https://me:geheim@host/a.pth?sig=geheim#key=net") == "https://host/a.pth#key=net"
