"""Settings: a variable counts, or it is an error."""

import pytest

from broker.settings import Settings, SettingsError


def test_without_variables_every_setting_has_its_default() -> None:
    """Our choice: a service runs with nothing set but where it must."""
    assert Settings.from_env({"PATH": "/bin", "OTEL_SERVICE_NAME": "x"}) == Settings()


def test_variables_are_read_as_the_types_of_their_settings() -> None:
    """Our choice: text of the environment becomes numbers where they are asked for."""
    env = {"MILLRACE_PORT": "8001", "MILLRACE_DRAIN_GRACE": "2.5", "MILLRACE_SYNC": "os"}
    assert Settings.from_env(env) == Settings(port=8001, drain_grace=2.5, sync="os")


@pytest.mark.parametrize(("given", "names"), [("", ()), ("cpu", ("cpu",)), (" cpu, default,,cpu ", ("cpu", "default"))])
def test_groups_are_separated_by_commas(given: str, names: tuple[str, ...]) -> None:
    """Our choice: none is every one."""
    assert Settings.from_env({"MILLRACE_GROUPS": given}).group_names == names


def test_a_misspelt_variable_is_refused_with_the_name_that_was_meant() -> None:
    """Our choice: nothing set is ever ignored."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({"MILLRACE_NATS_URI": "nats://there"})
    assert str(refused.value) == "MILLRACE_NATS_URI is not a setting; is it MILLRACE_NATS_URL?"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MILLRACE_PORT", "http"),
        ("MILLRACE_PORT", "70000"),
        ("MILLRACE_DRAIN_GRACE", "0"),
        ("MILLRACE_SYNC", "never"),
        ("MILLRACE_LOG_LEVEL", "loud"),
        ("MILLRACE_nkey", "lower case"),
    ],
)
def test_a_malformed_variable_is_refused_by_its_name_in_one_line(name: str, value: str) -> None:
    """Our choice: the line names the variable."""
    with pytest.raises(SettingsError) as refused:
        Settings.from_env({name: value})
    assert str(refused.value).startswith(name)
    assert "\n" not in str(refused.value)
