"""C-MOVE destinations: the associations over which objects go to another peer (PS3.4 C.4.2)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pynetdicom.presentation import build_context

from thinfilm_gateway.config import Peer
from thinfilm_gateway.dimse.peers import Peers
from thinfilm_gateway.dimse.suboperations import MAXIMUM_CONTEXTS, ChannelLost, StoreChannel, proposals
from thinfilm_gateway.index.locate import InstanceLocation


def batches(instances: Sequence[InstanceLocation]) -> Iterator[list[InstanceLocation]]:
    """Divide objects, in their order, so that each batch's presentation contexts fit into one association."""
    batch: list[InstanceLocation] = []
    kinds: dict[tuple[str, str], None] = {}
    for instance in instances:
        kind = (instance.sop_class_uid, instance.transfer_syntax_uid)
        if kind not in kinds and len(proposals([*kinds, kind])) > MAXIMUM_CONTEXTS:
            yield batch
            batch, kinds = [], {}
        kinds[kind] = None
        batch.append(instance)
    if batch:
        yield batch


def connect(peers: Peers, ae: Any, peer: Peer, instances: Iterable[InstanceLocation]) -> StoreChannel:
    """Open an association that takes these objects. Raises ChannelLost if the peer does not accept it."""
    kinds = dict.fromkeys((instance.sop_class_uid, instance.transfer_syntax_uid) for instance in instances)
    contexts = [build_context(sop_class_uid, list(syntaxes)) for sop_class_uid, syntaxes in proposals(kinds)]
    try:
        association = peers.request(ae, peer, contexts)
    except (OSError, UnicodeError) as error:
        raise ChannelLost(f"The host {peer.host} of the destination {peer.ae_title} is not known: {error}.") from error
    if not association.is_established:
        how = "refused the association" if association.is_rejected else "cannot be reached"
        raise ChannelLost(f"The destination {peer.ae_title} at {peer.host}:{peer.port} {how}.")
    return StoreChannel(association)
