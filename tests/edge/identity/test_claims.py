"""Claims: what a token whose signature holds may say, and what is believed of it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.config import Auth, Claims
from contracts.credentials import SCOPES
from contracts.errors import Code, MillraceError
from contracts.subjects import is_token
from edge.identity import claims
from edge.principal import Principal
from tests.edge.identity.issuer import MISSING

NOW = 1_000_000.0


def said(**more: object) -> dict[str, object]:
    """The claims of a good token, and others in their place."""
    good: dict[str, object] = {"iss": "millrace", "aud": "millrace", "tenant": "acme", "sub": "ann", "exp": NOW + 60}
    return {name: value for name, value in (good | more).items() if value is not MISSING}


def principal(auth: Auth = Auth(), /, **more: object) -> Principal:  # noqa: B008 - frozen
    """Whom they name."""
    return claims.principal(said(**more), auth, NOW, "signed")


def refusal(auth: Auth = Auth(), /, **more: object) -> Code:  # noqa: B008 - frozen
    """The code that they are refused with."""
    with pytest.raises(MillraceError) as refused:
        principal(auth, **more)
    return refused.value.code


@pytest.mark.parametrize("value", ["other", "", None, 1, ["millrace"], MISSING])
def test_another_issuers_token_is_refused(value: object) -> None:
    """RFC 7519, 4.1.1."""
    assert refusal(iss=value) == Code.UNAUTHORIZED


@pytest.mark.parametrize("value", ["other", "", None, 1, [], ["other"], [["millrace"]], {"millrace": 1}, MISSING])
def test_a_token_for_somebody_else_is_refused(value: object) -> None:
    """RFC 7519, 4.1.3."""
    assert refusal(aud=value) == Code.UNAUTHORIZED


def test_one_of_several_audiences_is_enough() -> None:
    """RFC 7519, 4.1.3."""
    assert principal(aud=["other", "millrace"])


def test_issuer_and_audience_are_the_configured_ones() -> None:
    """Issue 3: configurable."""
    auth = Auth(issuer="https://id.example", audience="api")
    assert principal(auth, iss="https://id.example", aud="api")
    assert refusal(auth) == Code.UNAUTHORIZED


@pytest.mark.parametrize(
    "value", [MISSING, None, "1000060", "never", True, [], {}, -1, 1e300, 10**400, float("inf"), float("nan")]
)
def test_a_token_without_a_time_to_expire_is_refused(value: object) -> None:
    """Our choice: `exp` is required, and is a number that is a time."""
    assert refusal(exp=value) == Code.UNAUTHORIZED


def test_a_token_that_has_expired_is_refused_with_its_own_code() -> None:
    """WIRE: `token_expired`, after the leeway for the issuer's clock."""
    assert principal(exp=NOW - 1.9).expires_at == NOW - 1.9
    assert refusal(exp=NOW - 2) == Code.TOKEN_EXPIRED
    assert refusal(Auth(leeway=0), exp=NOW) == Code.TOKEN_EXPIRED


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_a_token_of_the_future_is_refused(name: str) -> None:
    """RFC 7519, 4.1.5; and one issued in the future could not be revoked."""
    assert principal(**{name: NOW + 1.9})
    assert refusal(**{name: NOW + 2.1}) == Code.UNAUTHORIZED
    assert refusal(**{name: "0"}) == Code.UNAUTHORIZED


NO_NAMES = ["a.b", "*", ">", "acme.>", "", " acme", "a b", "é", "a" * 65, "$SYS", "a\n"]


@pytest.mark.parametrize("name", ["tenant", "sub"])
@pytest.mark.parametrize("value", [*NO_NAMES, ["acme"], {}, 1, True, None, MISSING])
def test_a_name_that_could_reach_beyond_its_place_is_refused(name: str, value: object) -> None:
    """DESIGN 2: a token with a dot or a wildcard would be a hole in P10."""
    assert refusal(**{name: value}) == Code.UNAUTHORIZED


@pytest.mark.parametrize("value", ["", 1, ["j"], {}])
def test_an_id_that_is_no_text_is_refused(value: object) -> None:
    """RFC 7519, 4.1.7."""
    assert refusal(jti=value) == Code.UNAUTHORIZED


@pytest.mark.parametrize(
    ("value", "scopes"),
    [
        ("read", {"read"}),
        ("read write  approve", {"read", "write", "approve"}),
        (["read", "admin"], {"read", "admin"}),
        ("openid profile", set()),
        ("readwrite READ read,write", set()),
        ("", set()),
        ([], set()),
        (MISSING, {"read", "write"}),
        (None, {"read", "write"}),
    ],
)
def test_scopes_are_a_text_or_a_list_and_unknown_ones_are_nothing(value: object, scopes: set[str]) -> None:
    """RFC 8693, 4.2; only a token that names none has the default."""
    assert principal(scope=value).scopes == scopes


@pytest.mark.parametrize("value", [1, True, {"read": True}, ["read", 1], [["read"]]])
def test_scopes_of_another_kind_are_refused(value: object) -> None:
    """Our choice: no guess at what a token allows."""
    assert refusal(scope=value) == Code.UNAUTHORIZED


@pytest.mark.parametrize(
    ("value", "projects"),
    [(["p1", "p2"], {"p1", "p2"}), ([], set()), (["*"], None), (["p1", "*"], None), (MISSING, None), (None, None)],
)
def test_projects_are_a_list_and_a_star_is_every_one(value: object, projects: set[str] | None) -> None:
    """Issue 3: a token's `projects` lists what it may watch."""
    assert principal(projects=value).projects == projects


@pytest.mark.parametrize("value", ["p1", "*", {"p1": 1}, 1, ["p.1"], [">"], ["p*"], [1], [["*"]], [None], [""]])
def test_projects_of_another_kind_are_refused(value: object) -> None:
    """Our choice: no guess; and a project becomes a token of a subject."""
    assert refusal(projects=value) == Code.UNAUTHORIZED


def test_what_a_token_does_not_say_has_the_configured_default() -> None:
    """Issue 3: configurable."""
    said = principal(Auth(default_scopes=("read",), default_projects=("p1",)))
    assert said.scopes == {"read"}
    assert said.projects == frozenset({"p1"})
    assert principal(Auth(default_scopes=(), default_projects=())).projects == frozenset()


def test_claims_have_other_names_that_reach_into_objects() -> None:
    """Issue 3: configurable."""
    names = Claims(tenant="org.id", user="https://a.example/user", scopes="realm_access.roles", projects="x.y.z")
    more = {"org": {"id": "globex"}, "https://a.example/user": "bob", "realm_access": {"roles": ["admin"]}}
    found = principal(Auth(claims=names), **more, x={"y": {"z": ["p1"]}})
    assert (found.tenant, found.user_id) == ("globex", "bob")
    assert found.scopes == {"admin"}
    assert found.projects == frozenset({"p1"})


@pytest.mark.parametrize("value", ["acme", ["id"], None, {"id": {"id": "acme"}}, MISSING])
def test_a_path_that_leads_nowhere_names_nobody(value: object) -> None:
    """Our choice: unauthorized, not an error of ours."""
    assert refusal(Auth(claims=Claims(tenant="org.id")), org=value) == Code.UNAUTHORIZED


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["*", "acme"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
names = st.sampled_from(["iss", "aud", "exp", "nbf", "iat", "jti", "tenant", "sub", "scope", "projects"])


@settings(deadline=None)
@given(st.dictionaries(names, json_values, max_size=4))
def test_whatever_claims_say_it_is_a_principal_or_a_refusal(more: dict[str, object]) -> None:
    """Our choice: never another exception, and never a name that is no token."""
    try:
        found = principal(**more)
    except MillraceError:
        return
    assert is_token(found.tenant)
    assert is_token(found.user_id)
    assert found.scopes <= set(SCOPES)
