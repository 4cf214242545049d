"""Why an image could not be had: names that end up in reports, and whether asking again later may help."""

from enum import StrEnum

from dpe_jobs.generation.images import NoImage


class Reason(StrEnum):
    """What was wrong with a download."""

    BAD_ADDRESS = "BadAddress"
    """No http(s) address of a host with a name, or one that is written so as to deceive."""
    BLOCKED_ADDRESS = "BlockedAddress"
    """The host's address belongs to a private or special network."""
    TOO_MANY_REDIRECTS = "TooManyRedirects"
    ROBOTS = "Robots"
    """The host's robots.txt forbids it, or is none that can be read."""
    HOST_IN_TROUBLE = "HostInTrouble"
    """The host's robots.txt did not come, so that nothing else is asked of it (RFC 9309, 2.3.1.4)."""
    NOT_FOUND = "NotFound"
    REFUSED = "Refused"
    """Another status from 400 to 499."""
    RATE_LIMITED = "RateLimited"
    """The host asks for more patience than there is."""
    SERVER_ERROR = "ServerError"
    TIMEOUT = "Timeout"
    CONNECTION = "Connection"
    """No such name, connection refused or broken, a certificate that does not fit, or no HTTP."""
    TOO_LARGE = "TooLarge"
    """More bytes than allowed."""
    ENCODED = "Encoded"
    """Compressed in transit although that was not asked for: what unpacks without bound is not unpacked."""
    NOT_AN_IMAGE = "NotAnImage"
    """The first bytes are those of no format that is taken, whatever the headers say."""
    TOO_MANY_PIXELS = "TooManyPixels"
    TOO_SMALL = "TooSmall"
    BROKEN = "Broken"
    """Truncated or corrupt."""


OUTAGES = frozenset(
    {Reason.HOST_IN_TROUBLE, Reason.RATE_LIMITED, Reason.SERVER_ERROR, Reason.TIMEOUT, Reason.CONNECTION}
)
"""The host gave no answer. What it forbids or refuses is an answer."""

PASSING = OUTAGES | {Reason.ROBOTS, Reason.REFUSED}
"""May be different in an hour."""


class NotFetched(NoImage):
    """One image cannot be had. Never the end of a stage: the next result may do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(f"{reason}: {message}", outage=reason in OUTAGES)
        self.reason, self.message = reason, message
