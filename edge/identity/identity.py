"""Identity: who makes a request, and whether that still holds."""

import asyncio

from broker.connect import Broker
from contracts.config import Auth
from contracts.credentials import key_id
from contracts.errors import Code, MillraceError
from edge.identity import tickets
from edge.identity.credentials import Credentials
from edge.identity.register import FAILURES, Register
from edge.identity.tokens import Tokens
from edge.principal import Principal


class Identity:
    """Everything that this edge knows of tokens, API keys and tickets."""

    def __init__(self, broker: Broker, auth: Auth, tokens: Tokens) -> None:
        self._broker = broker
        self._leeway = auth.leeway
        self._tokens = tokens
        self._register = Register(broker)

    @classmethod
    def open(cls, broker: Broker, auth: Auth, secret_file: str) -> "Identity":
        """Read what tokens are verified with. `secret_file` is empty where only a JWKS is to be believed.

        Raises OSError or ValueError where it cannot be used.
        """
        return cls(broker, auth, Tokens.open(auth, secret_file))

    async def principal(self, credentials: Credentials) -> Principal:
        """Whom the credentials name. A ticket is used up by it.

        Raises MillraceError `unauthorized`, `token_expired`, or `broker_unavailable` where that cannot be told now.
        """
        try:
            await self._register.ready()
            principal = await self._authenticated(credentials)
        except FAILURES:
            raise MillraceError(Code.BROKER_UNAVAILABLE) from None
        self.check(principal)
        return principal

    def check(self, principal: Principal) -> None:
        """Raises MillraceError `token_expired` or `unauthorized` where the credentials hold no longer."""
        # the leeway is for the clock of a token's issuer; a key's time is the broker's
        leeway = self._leeway if principal.credential.startswith("token:") else 0.0
        if principal.expires_at is not None and principal.expires_at + leeway <= self._broker.now():
            raise MillraceError(Code.TOKEN_EXPIRED)
        if self._register.has_revoked(principal):
            raise MillraceError(Code.UNAUTHORIZED, "the credentials were revoked")

    def holds(self, principal: Principal) -> bool:
        """Whether the credentials hold still."""
        try:
            self.check(principal)
        except MillraceError:
            return False
        return True

    async def issue_ticket(self, principal: Principal) -> tuple[str, float]:
        """A ticket that lets the same caller in once, and until when (Unix seconds).

        Raises MillraceError as `check` does, and `broker_unavailable` or `rate_limited`.
        """
        self.check(principal)
        return await tickets.issue(self._broker, principal)

    async def run(self) -> None:
        """Keep up with new keys and with what is revoked. Runs until it is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._register.run(), name="register")
                group.create_task(self._tokens.run(), name="jwks")
        finally:
            await self._register.close()
            await self._tokens.close()

    async def _authenticated(self, credentials: Credentials) -> Principal:
        if credentials.token:
            return await self._tokens.principal(credentials.token, self._broker.now())
        if credentials.api_key:
            return await self._of_key(credentials.api_key)
        if credentials.ticket:
            return await tickets.use(self._broker, credentials.ticket)
        raise MillraceError(Code.UNAUTHORIZED, "a token, an API key or a ticket is needed")

    async def _of_key(self, text: str) -> Principal:
        named = key_id(text)
        key = await self._register.key(named) if named else None
        if key is None or not key.opens_with(text):
            raise MillraceError(Code.UNAUTHORIZED, "the API key is not known")
        return Principal(
            tenant=key.tenant,
            user_id=key.user_id,
            expires_at=key.expires_at,
            scopes=frozenset(key.scopes),
            projects=None if key.projects is None else frozenset(key.projects),
            credential=f"key:{key.id}",
            issued_at=key.created_at,
        )

    def __repr__(self) -> str:
        """Hide everything."""
        return "Identity()"
