"""C-ECHO: the Verification service (PS3.4 Annex A, PS3.7 9.1.5)."""

from typing import Any

from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.presentation import PresentationContext

from thinfilm_gateway.dimse import status
from thinfilm_gateway.dimse.association import Association


def serve(association: Association, request: Any, context: PresentationContext) -> None:
    """Answer that we are there."""
    response = C_ECHO()
    response.MessageIDBeingRespondedTo = request.MessageID
    response.AffectedSOPClassUID = request.AffectedSOPClassUID
    response.Status = status.SUCCESS
    association.dimse.send_msg(response, context.context_id)
