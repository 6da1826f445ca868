"""Why an archive is not deployed.

CifarError (client.errors)
└── SignatureRefused   an archive cannot be signed, or its signature does not vouch for it
"""

from client.errors import CifarError


class SignatureRefused(CifarError):
    """A signature is missing, unreadable, of another key or of other bytes; or a key, or model-signing, is missing."""
