"""What devices are given for a campaign: the job document with the order and the proof that they are meant.

The signed parts decide; the rest is advice. (spec: ota, 6)
"""

import base64
from typing import Any, Final

import msgspec

from ota.campaign import PRESTAGE_ACTIVATION_S, PRESTAGE_TRANSFER_S, Campaign
from ota.campaign_ports import Releases, ReleaseView, Signer
from ota.campaign_store import CampaignStore
from ota.errors import TargetNotFoundError
from ota.job_ports import JOB_DOCUMENT_BYTES_MAX, Uses
from ota.models import Execution
from ota.order import Proof, encode_proof
from ota.streams import FILE_BYTES_MAX
from ota.trees import Tree, name_tree

KEPT_MAX: Final = 60
"""Campaigns whose trees are kept."""
WINDOW_BLOCKS: Final = 8
JITTER_S: Final = 20
_LATER: Final = "@later@"
"""Stands for what differs from document to document."""


class _Prepared:
    """All of a document but the proof, and what proofs are made of."""

    __slots__ = ("end", "head", "tree", "uses")

    def __init__(self, head: bytes, end: bytes, tree: Tree, uses: Uses) -> None:
        self.head, self.end, self.tree, self.uses = head, end, tree, uses


class JobDocuments:
    """Makes job documents; what is common to a campaign is made once."""

    def __init__(self, campaigns: CampaignStore, releases: Releases, signer: Signer, images_url: str) -> None:
        """Take where images are to be had over HTTPS; the hash of the image follows it."""
        self._campaigns = campaigns
        self._releases = releases
        self._signer = signer
        self._images_url = images_url
        self._kept: dict[str, _Prepared] = {}

    async def document(self, execution: Execution) -> bytes:
        """Return the job document of a target."""
        prepared = await self._prepared(execution.campaign)
        if execution.proof_index < 0:
            raise TargetNotFoundError(execution.thing)
        path = prepared.tree.proof(execution.proof_index)
        proof = base64.b64encode(encode_proof(Proof(execution.proof_index, path)))
        # A device that has an older list of keys fetches this one first.
        return b'%b"proof":"%b","keys":%d%b' % (
            prepared.head,
            proof,
            await self._signer.number(),
            prepared.end,
        )

    async def uses(self, campaign: str) -> Uses:
        """Return what may be fetched for a campaign."""
        return (await self._prepared(campaign)).uses

    async def _prepared(self, id: str) -> _Prepared:
        prepared = self._kept.get(id)
        if prepared is None:
            prepared = self._kept[id] = await self._prepare(id)
            if len(self._kept) > KEPT_MAX:
                del self._kept[next(iter(self._kept))]
        return prepared

    async def _prepare(self, id: str) -> _Prepared:
        campaign = (await self._campaigns.load(id)).record
        assert campaign.frozen is not None, "nobody has an execution of a draft"
        frozen = campaign.frozen
        release = await self._releases.view(campaign.terms.release)
        names = await self._campaigns.names(id, frozen.revision, frozen.parts)
        body = document_of(campaign, release, self._images_url)
        head, end = msgspec.json.encode(body).split(b'"%b":0' % _LATER.encode())
        assert len(head) + len(end) < JOB_DOCUMENT_BYTES_MAX // 2, "envelopes are bounded"
        uses = Uses(frozenset({frozen.image}), frozenset({release.stream}))
        return _Prepared(head, end, name_tree(names.ordered), uses)


def document_of(campaign: Campaign, release: ReleaseView, images_url: str) -> dict[str, Any]:
    """Return what all job documents of a campaign have in common."""
    terms, manifest = campaign.terms, release.manifest
    url, in_blocks = f"{images_url}{manifest.sha256}", manifest.size <= FILE_BYTES_MAX
    file: dict[str, Any] = {
        "filepath": "/fw",
        "filesize": manifest.size,
        "fileid": 0,
        "certfile": "/ota.pem",
        "fileType": 0,
    }
    if release.afr_signature:
        file["sig-sha256-ecdsa"] = release.afr_signature
    if not in_blocks:
        file |= {"update_data_url": url, "auth_scheme": ""}
    return {
        # What is too large for blocks has its leaves and its manifest in the stream all the same.
        "afr_ota": {
            "protocols": ["MQTT" if in_blocks else "HTTP"],
            "streamname": release.stream,
            "files": [file],
        },
        "gnomon": {
            "v": 1,
            "manifest": base64.b64encode(release.envelope).decode(),
            "order": base64.b64encode(campaign.order).decode(),
            _LATER: 0,
            "deadline_s": PRESTAGE_TRANSFER_S if terms.prestage else terms.deadline_s,
            "confirm_s": min(terms.confirm_s, PRESTAGE_ACTIVATION_S) if terms.prestage else terms.confirm_s,
            "prestage": terms.prestage,
            "activate_at": terms.activate_at_ms // 1_000,
            "block": manifest.block,
            "window": WINDOW_BLOCKS,
            "jitter_s": JITTER_S,
            "http": url,
        },
    }
