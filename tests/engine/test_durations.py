"""When a WAIT is over."""

import pytest

from maestoso_server.definitions.durations import parse_duration_ms, parse_moment_ms
from maestoso_server.engine.durations import WaitError, wait_due_ms


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1d 2h", 93_600),
        ("2 hours 30 minutes", 9_000),
        ("90s", 90),
        ("1d2h3m4s", 93_784),
        ("5 MINS", 300),
        ("1 hr", 3_600),
        ("PT1M", 60),
        ("P1DT2H", 93_600),
        ("P2W", 1_209_600),
        ("PT1.5S", 1.5),
        ("0s", 0),
    ],
)
def test_duration(text: str, seconds: float) -> None:
    assert parse_duration_ms(text) == seconds * 1000


@pytest.mark.parametrize(
    "text", ["", "30m 2h", "10", "1.5h", "1w", "100ms", "P1M", "P1Y", "P", "PT", "-1s", "\u0661s"]
)
def test_text_that_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2024-02-29", 1_709_164_800),
        ("2024-01-01 10:00", 1_704_103_200),
        ("2024-01-01 10:00 PST", 1_704_132_000),
        ("2024-01-01 10:00 GMT+04:00", 1_704_088_800),
        ("2024-01-01T10:00:00Z", 1_704_103_200),
        ("2024-01-01T10:00:00.123+02:00", 1_704_096_000.123),
        ("2024-01-01T10:00:00-0800", 1_704_132_000),
    ],
)
def test_moment(text: str, seconds: float) -> None:
    assert parse_moment_ms(text) == round(seconds * 1000)


@pytest.mark.parametrize(
    "text",
    [
        "2024-02-31",
        "2024-01-01 10:75",
        "2024-01-01 10:00 XXX",
        "2024-1-1",
        "tomorrow",
        "2024-01-01 10:00 +99",
    ],
)
def test_text_that_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_moment_ms(text)


@pytest.mark.parametrize(
    ("duration", "until", "due"),
    [
        ("10s", None, 11_000),
        ("10s", "", 11_000),
        (None, "1970-01-02", 86_400_000),
        (None, None, None),
        ("", "  ", None),
    ],
)
def test_wait(duration: str | None, until: str | None, due: int | None) -> None:
    assert wait_due_ms(duration, until, now_ms=1_000) == due


@pytest.mark.parametrize(
    ("duration", "until", "reason"),
    [
        ("1s", "2024-01-01", "Both 'duration' and 'until' specified. Please provide only one input"),
        (None, "soon", "Invalid/Unsupported Wait Until format.  Provided: soon"),
        (10, None, "Invalid/Unsupported Wait duration.  Provided: 10"),
    ],
)
def test_wait_that_means_no_time_is_refused(duration: object, until: object, reason: str) -> None:
    with pytest.raises(WaitError) as caught:
        wait_due_ms(duration, until, now_ms=0)
    assert str(caught.value).startswith(reason)
