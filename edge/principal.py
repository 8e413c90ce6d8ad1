"""Principal: who a request or connection is made by, and what that allows."""

from typing import Literal

from msgspec import Struct

from contracts.errors import Code, MillraceError

Scope = Literal["read", "write", "approve", "admin"]
"""`read`: see one's sessions. `write`: speak, cancel and decide in them. `approve`: join any session of the tenant,
read in it, and decide there. `admin`: everything in the tenant."""


class Principal(Struct, frozen=True):
    """An authenticated caller. Tenant and user come from here and from nowhere else.

    `expires_at` and `issued_at`: Unix seconds; None for never and for not told. `projects`: those it may watch; None
    for every one of the tenant. `credential` names what it was authenticated with: `key:<id>`, `token:<hash>`.
    """

    tenant: str
    user_id: str
    expires_at: float | None
    scopes: frozenset[str] = frozenset({"read", "write"})
    projects: frozenset[str] | None = None
    credential: str = ""
    issued_at: float | None = None

    def may(self, scope: Scope) -> bool:
        """Whether the scope is granted."""
        wide = ("admin", "approve") if scope == "read" else ("admin",)  # who decides sees on what
        return scope in self.scopes or not self.scopes.isdisjoint(wide)

    def require(self, scope: Scope) -> None:
        """Raises MillraceError `forbidden` where the scope is not granted."""
        if not self.may(scope):
            raise MillraceError(Code.FORBIDDEN, f"the scope {scope} is needed", scope=scope)

    def may_watch(self, project_id: str) -> bool:
        """Whether the project's events may be seen."""
        return self.projects is None or project_id in self.projects

    @property
    def may_join_any(self) -> bool:
        """Whether every session of the tenant may be joined, not only one's own."""
        return self.may("approve")
