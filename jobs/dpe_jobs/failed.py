"""Why a question to a service has no answer. None of these is ever a wrong answer of a model."""

from dpe_jobs.chat import Complaint


class RequestFailed(Exception):
    """The service gave no answer, in spite of retries. The message says what it said."""


class Refused(RequestFailed):
    """The service understood and said no; asking the same again would bring the same."""

    def __init__(self, message: str, status: int, about: Complaint) -> None:
        super().__init__(message)
        self.status, self.about = status, about


class EndpointDown(RequestFailed):
    """So many requests in a row got no answer that no more are sent."""


class BudgetSpent(RequestFailed):
    """Not asked: the calls, tokens or money that were allowed are used up."""
