"""What is said of something that is wrong with the gateway and will stay so until somebody mends it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HealthWarning:
    """One thing that is wrong.

    name: what is wrong with what, the same for as long as it lasts, such as "certificate_ends tls_certificate".
    sentence: the same for people, with what mends it; figures in it may change.
    """

    name: str
    sentence: str
