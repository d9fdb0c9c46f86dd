"""Why an association is not accepted (PS3.8 9.3.4)."""

NO_REASON = (1, 1, 1)  # result, source and reason: PS3.8 Table 9-21
APPLICATION_CONTEXT_NOT_SUPPORTED = (1, 1, 2)
CALLING_AE_TITLE_NOT_RECOGNIZED = (1, 1, 3)
CALLED_AE_TITLE_NOT_RECOGNIZED = (1, 1, 7)
PROTOCOL_VERSION_NOT_SUPPORTED = (1, 2, 2)
LOCAL_LIMIT_EXCEEDED = (2, 3, 2)


class Rejected(Exception):
    """An association is not accepted; the message is one sentence for the log."""

    def __init__(self, rejection: tuple[int, int, int], sentence: str) -> None:
        """rejection: result, source and reason of the A-ASSOCIATE-RJ."""
        super().__init__(sentence)
        self.rejection = rejection
